// Command poll-loop consumes as the common design does: Poll, handle one message, store its offset, Poll again.
//
// librdkafka fetches ahead in its own threads and commits stored offsets every five seconds; offsets are stored only
// after the delivery, so that a crash loses nothing. Everything else is librdkafka's default.
package main

import (
	"log"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"tocsin.dev/bench/peers/internal/delivery"
)

const pollTimeoutMS = 100

func main() {
	options := delivery.ParseOptions()
	consumer, err := kafka.NewConsumer(&kafka.ConfigMap{
		"bootstrap.servers":        options.Brokers,
		"group.id":                 options.Group,
		"auto.offset.reset":        "earliest",
		"enable.auto.commit":       true,
		"enable.auto.offset.store": false,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := consumer.SubscribeTopics([]string{options.Topic}, nil); err != nil {
		log.Fatal(err)
	}
	deliverer := delivery.New(options.URL)
	for {
		switch event := consumer.Poll(pollTimeoutMS).(type) {
		case *kafka.Message:
			if err := deliverer.Deliver(event.Value); err != nil {
				log.Fatal(err)
			}
			if _, err := consumer.StoreMessage(event); err != nil {
				log.Fatal(err)
			}
		case kafka.Error:
			if event.IsFatal() {
				log.Fatal(event)
			}
		}
	}
}
