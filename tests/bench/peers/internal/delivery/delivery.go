// Package delivery is what both loops do with one record: decode it, post it to a webhook, count it.
//
// The HTTP client keeps its connection and reads answers to their end, so that it is reused; the body and the headers
// are those of Tocsin's channel, so that all contestants send the same bytes.
package delivery

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	channel         = "hook"
	requestTimeout  = 10 * time.Second
	progressEvery   = 20 * time.Millisecond
	contentTypeJSON = "application/json"
)

// Options are the words that both loops are started with.
type Options struct {
	Brokers, Topic, Group, URL string
}

// ParseOptions reads the command line. Without -url a record is decoded and that is all: the no-op sink.
func ParseOptions() Options {
	var options Options
	flag.StringVar(&options.Brokers, "brokers", "", "host:port of Kafka")
	flag.StringVar(&options.Topic, "topic", "", "the topic to read from its beginning")
	flag.StringVar(&options.Group, "group", "", "the consumer group")
	flag.StringVar(&options.URL, "url", "", "where to post; empty for the no-op sink")
	flag.Parse()
	return options
}

type notification struct {
	ID      string         `json:"id"`
	FromID  string         `json:"fromID"`
	ToID    string         `json:"toID"`
	Message string         `json:"message"`
	Title   string         `json:"title,omitempty"`
	Data    map[string]any `json:"data,omitempty"`
}

type addressed struct {
	notification
	Channel   string            `json:"channel"`
	Recipient map[string]string `json:"recipient"`
}

type event struct {
	Type      string    `json:"type"`
	Timestamp string    `json:"timestamp"`
	Data      addressed `json:"data"`
}

// Deliverer delivers one record at a time.
type Deliverer struct {
	url    string
	client *http.Client
	count  atomic.Int64
}

// New returns a Deliverer that writes how many records it has delivered to standard output, fifty times a second.
func New(url string) *Deliverer {
	deliverer := &Deliverer{url: url, client: &http.Client{Timeout: requestTimeout}}
	go deliverer.report()
	return deliverer
}

// Deliver decodes a record's value and posts it; it returns when the receiver has taken it.
func (d *Deliverer) Deliver(value []byte) error {
	var content notification
	if err := json.Unmarshal(value, &content); err != nil {
		return fmt.Errorf("not a notification: %w", err)
	}
	if d.url != "" {
		if err := d.post(&content); err != nil {
			return err
		}
	}
	d.count.Add(1)
	return nil
}

func (d *Deliverer) post(content *notification) error {
	now := time.Now().UTC()
	body, err := json.Marshal(event{
		Type:      "dev.tocsin.notification.v1",
		Timestamp: now.Format(time.RFC3339Nano),
		Data:      addressed{*content, channel, map[string]string{"id": content.ToID}},
	})
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, d.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", contentTypeJSON)
	request.Header.Set("Webhook-Id", content.ID+"_"+channel)
	request.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("HTTP %d", response.StatusCode)
	}
	return nil
}

func (d *Deliverer) report() {
	for range time.Tick(progressEvery) {
		fmt.Fprintln(os.Stdout, d.count.Load())
	}
}
