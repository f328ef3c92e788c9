// A notification service as tutorials and seeds of this kind have it: Gin, a map of users, sarama's SyncProducer.
// One JSON request is one record, answered once all in-sync replicas have it. Nothing is logged per request.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/gin-gonic/gin"
)

type user struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

type request struct {
	FromID  int    `json:"fromID" binding:"required"`
	ToID    int    `json:"toID" binding:"required"`
	Message string `json:"message" binding:"required"`
	Title   string `json:"title"`
}

type notification struct {
	From    user   `json:"from"`
	To      user   `json:"to"`
	Message string `json:"message"`
	Title   string `json:"title,omitempty"`
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "where to listen")
	brokers := flag.String("brokers", "127.0.0.1:9092", "Kafka's addresses")
	topic := flag.String("topic", "notifications", "where to produce to")
	users := flag.Int("users", 1000, "how many users there are")
	flag.Parse()

	config := sarama.NewConfig()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Retry.Max = 10
	config.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer(strings.Split(*brokers, ","), config)
	if err != nil {
		log.Fatal(err)
	}
	known := make(map[int]user, *users)
	for id := 1; id <= *users; id++ {
		known[id] = user{ID: id, Name: "User " + strconv.Itoa(id)}
	}

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(gin.Recovery())
	router.POST("/v1/notifications", func(c *gin.Context) {
		var asked request
		if err := c.ShouldBindJSON(&asked); err != nil {
			c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
			return
		}
		from, hasFrom := known[asked.FromID]
		to, hasTo := known[asked.ToID]
		if !hasFrom || !hasTo {
			c.JSON(http.StatusNotFound, gin.H{"error": "no such user"})
			return
		}
		value, err := json.Marshal(notification{From: from, To: to, Message: asked.Message, Title: asked.Title})
		if err != nil {
			c.JSON(http.StatusInternalServerError, gin.H{"error": err.Error()})
			return
		}
		_, _, err = producer.SendMessage(&sarama.ProducerMessage{
			Topic: *topic,
			Key:   sarama.StringEncoder(strconv.Itoa(to.ID)),
			Value: sarama.ByteEncoder(value),
		})
		if err != nil {
			c.JSON(http.StatusInternalServerError, gin.H{"error": err.Error()})
			return
		}
		c.JSON(http.StatusAccepted, gin.H{"status": "stored"})
	})
	server := &http.Server{Addr: *listen, Handler: router, ReadHeaderTimeout: 15 * time.Second}
	log.Fatal(server.ListenAndServe())
}
