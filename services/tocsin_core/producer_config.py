"""What a producer asks of librdkafka. Pure, and the one place where its property names stand."""

from __future__ import annotations

from typing import Any

from tocsin_core.connection import build_client_config
from tocsin_core.settings import KafkaSettings

LINGER_MS = 0.5
"""How long librdkafka waits for the rest of what is handed over together, about as long as handing it over takes; the
waiting that pays was done before."""
STATISTICS_INTERVAL_MS = 500
TOPIC_MISSING_AFTER_MS = 3_000
"""How long a topic may be unknown (metadata spreads) before records for it fail as TopicMissing."""


def build_producer_config(settings: KafkaSettings, *, client_id: str) -> dict[str, Any]:
    """Return librdkafka's properties for a producer that loses and reorders nothing it acknowledged. Pure."""
    timeout_ms = max(1, int(settings.delivery_timeout_seconds * 1_000))
    return {
        **build_client_config(settings),
        "client.id": client_id,
        "acks": "all",
        "enable.idempotence": settings.retries > 0,  # without retries there is nothing to deduplicate
        "retries": settings.retries,
        "retry.backoff.ms": 100,
        "retry.backoff.max.ms": 2_000,
        "delivery.timeout.ms": timeout_ms,
        "request.timeout.ms": timeout_ms,
        "linger.ms": LINGER_MS,
        "partitioner": "murmur2_random",  # what Java clients compute
        "compression.type": "lz4",
        "message.max.bytes": settings.message_max_bytes,
        "batch.size": settings.batch_max_bytes,
        "queue.buffering.max.messages": settings.queue_max_messages,
        "queue.buffering.max.kbytes": settings.queue_max_kbytes,
        "topic.metadata.propagation.max.ms": TOPIC_MISSING_AFTER_MS,
        "statistics.interval.ms": STATISTICS_INTERVAL_MS,
    }
