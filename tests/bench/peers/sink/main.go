// Command sink is the receiver of every webhook in the benchmark: it answers 200, after a while where it is told to.
//
//	POST /hook/<name>                      counted under <name>, answered after that name's delay
//	PUT  /hook/<name>?delay=5ms&record=1   sets the delay; with record, remembers each webhook-id and when it came
//	GET  /hook/<name>                      {"count": n}
//	GET  /receipts/<name>                  one line per receipt: webhook-id, nanoseconds since 1970
//
// It listens on -listen and writes its address to standard output. It must never be what limits a contestant, and its
// CPU is nobody's.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	hooks    = "/hook/"
	receipts = "/receipts/"
)

type receipt struct {
	id string
	at time.Time
}

type hook struct {
	delay    time.Duration
	isKept   bool
	count    atomic.Int64
	mutex    sync.Mutex
	receipts []receipt
}

func (h *hook) take(request *http.Request) error {
	came := time.Now()
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return err
	}
	if h.isKept {
		h.mutex.Lock()
		h.receipts = append(h.receipts, receipt{request.Header.Get("Webhook-Id"), came})
		h.mutex.Unlock()
	}
	h.count.Add(1)
	time.Sleep(h.delay)
	return nil
}

func (h *hook) write(writer io.Writer) error {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	buffer := bufio.NewWriter(writer)
	for _, each := range h.receipts {
		fmt.Fprintln(buffer, each.id, each.at.UnixNano())
	}
	return buffer.Flush()
}

type sink struct {
	hooks sync.Map
}

func (s *sink) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	if name, found := strings.CutPrefix(request.URL.Path, receipts); found {
		s.with(name, writer, func(h *hook) error { return h.write(writer) })
		return
	}
	name := strings.TrimPrefix(request.URL.Path, hooks)
	switch request.Method {
	case http.MethodPost:
		s.with(name, writer, func(h *hook) error { return h.take(request) })
	case http.MethodGet:
		s.with(name, writer, func(h *hook) error {
			_, err := fmt.Fprintf(writer, "{\"count\": %d}\n", h.count.Load())
			return err
		})
	case http.MethodPut:
		s.open(name, writer, request)
	}
}

func (s *sink) with(name string, writer http.ResponseWriter, do func(*hook) error) {
	found, isKnown := s.hooks.Load(name)
	if !isKnown {
		http.Error(writer, "no such hook: PUT it first", http.StatusNotFound)
		return
	}
	if err := do(found.(*hook)); err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
	}
}

func (s *sink) open(name string, writer http.ResponseWriter, request *http.Request) {
	query := request.URL.Query()
	delay, err := time.ParseDuration(query.Get("delay"))
	if err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	s.hooks.Store(name, &hook{delay: delay, isKept: query.Get("record") != ""})
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, &sink{}))
}
