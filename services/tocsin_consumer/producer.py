"""What is asked of a producer here: dead letters and retry records are written, and no client waits for them.

A broker that stalls for a minute must not have them written twice. The producer repeats without duplicates, so it has
two minutes before it calls an outcome unknown; what is unknown is written anew, and may then be there twice.

A broker that finds a batch too large refuses all that is in it, and a dead letter that is too large loses its value. So
batches are smaller than what any topic takes, and what is refused for its size is one record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tocsin_core.settings import KafkaSettings

DELIVERY_TIMEOUT_SECONDS = 120.0
BATCH_MAX_BYTES = 65_536


class Producer(Protocol):
    """The part of the producer that is needed here."""

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        *,
        partition: int | None = None,
    ) -> Any:
        """Enqueue a record and return an awaitable of its acknowledgement. May raise a KafkaFailure at once."""
        ...

    async def count_partitions(self, topic: str) -> int:
        """Return how many partitions a topic has. Raise TopicMissing, NotAuthorized or another KafkaFailure."""
        ...


def build_producer_settings(kafka: KafkaSettings) -> KafkaSettings:
    """Return the settings of a consumer's own producer.

    What could be read must be writable, with headers more: the topics bound a record, and the queue bounds memory.
    """
    return kafka.model_copy(
        update={
            # A dead letter is only a dead letter once Kafka has it, whatever ingestion may promise.
            "producer_return_successes": True,
            "message_max_bytes": min(kafka.queue_max_kbytes * 1_024, 1_000_000_000),
            "batch_max_bytes": min(kafka.batch_max_bytes, BATCH_MAX_BYTES),
            "delivery_timeout_seconds": max(kafka.delivery_timeout_seconds, DELIVERY_TIMEOUT_SECONDS),
        }
    )
