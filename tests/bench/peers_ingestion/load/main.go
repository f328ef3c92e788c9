// The load: POSTs notifications over a fixed number of kept connections and says, as one JSON object, what came of them.
//
// With a rate it is an open loop: request i is meant for start + i/rate, and its latency counts from then, whether or
// not a connection was free (no coordinated omission). Without one it is a closed loop: for throughput and CPU only.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/valyala/fasthttp"
)

const (
	variants   = 512
	bucketSize = 50 * time.Millisecond
	longest    = int64(5 * time.Minute / time.Microsecond)
)

var (
	acceptedCount = regexp.MustCompile(`"accepted":(\d+)`)
	id            = regexp.MustCompile(`"id":"([0-9a-f-]+)"`)
)

// What one worker has seen; merged at the end, so that workers share nothing but the next slot.
type notes struct {
	statuses map[int]int64
	accepted int64
	failures int64
	latency  *hdrhistogram.Histogram
	buckets  map[int64]map[int]int64
	ids      []string
}

type result struct {
	Seconds  float64                 `json:"seconds"`
	Statuses map[int]int64           `json:"statuses"`
	Accepted int64                   `json:"accepted"`
	Failures int64                   `json:"failures"`
	P50      float64                 `json:"p50_ms"`
	P99      float64                 `json:"p99_ms"`
	P999     float64                 `json:"p999_ms"`
	Max      float64                 `json:"max_ms"`
	Buckets  map[int64]map[int]int64 `json:"buckets"` // by the time of the answer: 50 ms each, status -> count
}

func main() {
	url := flag.String("url", "http://127.0.0.1:8080/v1/notifications", "where to post")
	connections := flag.Int("connections", 64, "kept connections, each with one request at a time")
	seconds := flag.Float64("seconds", 5, "how long")
	rate := flag.Float64("rate", 0, "requests per second; 0: as many as the answers allow")
	batch := flag.Int("batch", 0, "notifications per request; 0: single ones")
	users := flag.Int("users", 1000, "how many users there are")
	text := flag.Int("text", 380, "characters of a message")
	idsPath := flag.String("ids", "", "a file for the ids answered 202")
	flag.Parse()

	bodies := buildBodies(*batch, *users, *text)
	client := &fasthttp.HostClient{
		Addr:                strings.SplitN(strings.TrimPrefix(*url, "http://"), "/", 2)[0],
		MaxConns:            *connections,
		MaxIdleConnDuration: time.Hour,
		ReadTimeout:         2 * time.Minute,
	}
	start := time.Now()
	end := start.Add(time.Duration(*seconds * float64(time.Second)))
	all := make([]*notes, *connections)
	var next atomic.Int64
	var workers sync.WaitGroup
	for number := range all {
		seen := &notes{
			statuses: map[int]int64{},
			latency:  hdrhistogram.New(1, longest, 3),
			buckets:  map[int64]map[int]int64{},
		}
		all[number] = seen
		workers.Go(func() {
			for {
				meant := time.Now()
				if *rate > 0 {
					meant = start.Add(time.Duration(float64(next.Add(1)-1) / *rate * float64(time.Second)))
				}
				if meant.After(end) {
					return
				}
				time.Sleep(time.Until(meant))
				seen.post(client, *url, bodies[rand.Intn(len(bodies))], *batch, start, meant, *idsPath != "")
			}
		})
	}
	workers.Wait()
	report(all, time.Since(start), *idsPath)
}

func buildBodies(batch, users, text int) [][]byte {
	bodies := make([][]byte, variants)
	for i := range bodies {
		items := make([]string, max(batch, 1))
		for j := range items {
			items[j] = fmt.Sprintf(
				`{"fromID": 1, "toID": %d, "message": "%s", "title": "hello"}`, rand.Intn(users)+1, strings.Repeat("x", text),
			)
		}
		if batch > 0 {
			bodies[i] = []byte("[" + strings.Join(items, ",") + "]")
		} else {
			bodies[i] = []byte(items[0])
		}
	}
	return bodies
}

func (seen *notes) post(
	client *fasthttp.HostClient, url string, body []byte, batch int, start, meant time.Time, keepsIDs bool,
) {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	request.SetRequestURI(url)
	request.Header.SetMethod(fasthttp.MethodPost)
	request.Header.SetContentType("application/json")
	request.SetBodyRaw(body)
	err := client.Do(request, response)
	answered := time.Now()
	status := response.StatusCode()
	if err != nil {
		status = 0
		seen.failures++
	}
	seen.statuses[status]++
	_ = seen.latency.RecordValue(max(1, answered.Sub(meant).Microseconds()))
	bucket := int64(answered.Sub(start) / bucketSize)
	if seen.buckets[bucket] == nil {
		seen.buckets[bucket] = map[int]int64{}
	}
	seen.buckets[bucket][status]++
	seen.count(response.Body(), status, batch, keepsIDs)
}

func (seen *notes) count(body []byte, status, batch int, keepsIDs bool) {
	if batch > 0 {
		if found := acceptedCount.FindSubmatch(body); found != nil {
			count, _ := strconv.ParseInt(string(found[1]), 10, 64)
			seen.accepted += count
		}
		return
	}
	if status != fasthttp.StatusAccepted {
		return
	}
	seen.accepted++
	if keepsIDs {
		if found := id.FindSubmatch(body); found != nil {
			seen.ids = append(seen.ids, string(found[1]))
		}
	}
}

func report(all []*notes, took time.Duration, idsPath string) {
	total := result{Seconds: took.Seconds(), Statuses: map[int]int64{}, Buckets: map[int64]map[int]int64{}}
	latency := hdrhistogram.New(1, longest, 3)
	for _, seen := range all {
		latency.Merge(seen.latency)
		total.Accepted += seen.accepted
		total.Failures += seen.failures
		for status, count := range seen.statuses {
			total.Statuses[status] += count
		}
		for bucket, statuses := range seen.buckets {
			if total.Buckets[bucket] == nil {
				total.Buckets[bucket] = map[int]int64{}
			}
			for status, count := range statuses {
				total.Buckets[bucket][status] += count
			}
		}
	}
	total.P50, total.P99 = milliseconds(latency.ValueAtQuantile(50)), milliseconds(latency.ValueAtQuantile(99))
	total.P999, total.Max = milliseconds(latency.ValueAtQuantile(99.9)), milliseconds(latency.Max())
	if idsPath != "" {
		writeIDs(all, idsPath)
	}
	if err := json.NewEncoder(os.Stdout).Encode(total); err != nil {
		log.Fatal(err)
	}
}

func writeIDs(all []*notes, path string) {
	file, err := os.Create(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	out := bufio.NewWriter(file)
	defer out.Flush()
	for _, seen := range all {
		for _, each := range seen.ids {
			fmt.Fprintln(out, each)
		}
	}
}

func milliseconds(microseconds int64) float64 {
	return float64(microseconds) / 1000
}
