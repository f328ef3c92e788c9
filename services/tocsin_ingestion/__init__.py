"""The HTTP side of a pipeline: validates a notification, looks its people up, answers 202 once Kafka has it."""
