"""The delivering side of a pipeline: Kafka to channels, in order per recipient and channel."""
