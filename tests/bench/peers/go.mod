module tocsin.dev/bench/peers

go 1.25.0

require (
	github.com/confluentinc/confluent-kafka-go/v2 v2.15.0
	github.com/segmentio/kafka-go v0.4.51
)

require (
	github.com/klauspost/compress v1.15.9 // indirect
	github.com/pierrec/lz4/v4 v4.1.15 // indirect
)
