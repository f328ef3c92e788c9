"""Where a notification ends that cannot be delivered: the dead-letter topic.

Key, value and headers are the original bytes, even where nobody could read them; what went wrong is told in further
headers, so that a record can be replayed as if nothing had happened. One that went through retry topics is the record
it was at first, and says where that stood. An offset is only ever finished after the broker
has acknowledged its dead letter: while the topic is missing or the broker away, the offset waits and says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from tocsin_core.message import Record
from tocsin_core.retry_record import shorten

REPLAY_COUNT = "dlq-replay-count"


class BurialReason(StrEnum):
    """The values of `dlq-reason` that are not a channel's own."""

    UNDECODABLE = "undecodable"
    USER_MISSING = "user_missing"
    UNKNOWN_CHANNEL = "unknown_channel"
    MALFORMED_RETRY = "malformed_retry"


@dataclass(frozen=True, slots=True)
class Burial:
    """Why a record goes to the dead-letter topic."""

    reason: str
    error_class: str
    error_message: str
    channel: str
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime


class Sender(Protocol):
    """The part of the producer that is needed here."""

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]) -> Any:
        """Enqueue a record and return an awaitable of its acknowledgement. Raise QueueFull at once."""
        ...


class DeadLetters:
    """Writes dead letters of one consumer group to one topic."""

    def __init__(self, sender: Sender, *, topic: str, group: str) -> None:
        self.topic = topic
        self._sender = sender
        self._group = group

    async def bury(self, record: Record, burial: Burial) -> None:
        """Write the dead letter; return once the broker has acknowledged it. Raise KafkaFailure if it does not."""
        headers = [*record.headers, *build_headers(record, burial, group=self._group)]
        await self._sender.send(self.topic, record.key, record.value, headers)


def build_headers(record: Record, burial: Burial, *, group: str) -> list[tuple[str, bytes]]:
    """Return the headers that say where a dead letter comes from and why it died."""
    texts = {
        "dlq-original-topic": record.topic,
        "dlq-original-partition": str(record.partition),
        "dlq-original-offset": str(record.offset),
        "dlq-original-timestamp": str(record.timestamp_ms),
        "dlq-consumer-group": group,
        "dlq-channel": burial.channel,
        "dlq-reason": burial.reason,
        "dlq-error-class": burial.error_class,
        "dlq-error-message": shorten(burial.error_message),
        "dlq-attempts": str(burial.attempts),
        "dlq-first-failed-at": burial.first_failed_at.astimezone(UTC).isoformat(),
        "dlq-last-failed-at": burial.last_failed_at.astimezone(UTC).isoformat(),
        REPLAY_COUNT: (record.header(REPLAY_COUNT) or b"0").decode("ascii", "replace"),
    }
    return [(name, text.encode()) for name, text in texts.items()]
