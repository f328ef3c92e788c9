// Command kafka-go consumes with segmentio's reader: FetchMessage, handle one message, CommitMessages, and again.
//
// CommitInterval makes commits asynchronous and one per second, as its documentation advises for throughput; the
// reader fetches ahead in a goroutine per partition. MinBytes and MaxBytes are those of its documentation.
package main

import (
	"context"
	"log"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"tocsin.dev/bench/peers/internal/delivery"
)

func main() {
	options := delivery.ParseOptions()
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers:        strings.Split(options.Brokers, ","),
		GroupID:        options.Group,
		Topic:          options.Topic,
		StartOffset:    kafka.FirstOffset,
		MinBytes:       10e3,
		MaxBytes:       10e6,
		MaxWait:        500 * time.Millisecond,
		CommitInterval: time.Second,
		QueueCapacity:  1000,
	})
	deliverer := delivery.New(options.URL)
	ctx := context.Background()
	for {
		message, err := reader.FetchMessage(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if err := deliverer.Deliver(message.Value); err != nil {
			log.Fatal(err)
		}
		if err := reader.CommitMessages(ctx, message); err != nil {
			log.Fatal(err)
		}
	}
}
