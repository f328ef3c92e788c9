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

from tocsin_consumer.producer import Producer
from tocsin_core.complaints import Complaints
from tocsin_core.connection import Code
from tocsin_core.errors import RecordRejected
from tocsin_core.logging import get_logger
from tocsin_core.message import Record
from tocsin_core.retry_record import shorten

REPLAY_COUNT = "dlq-replay-count"
VALUE_OMITTED = "dlq-value-omitted"
"""How many bytes the value had that the topic did not take; instead of it the letter has an empty one."""
TOO_LARGE = (Code.MESSAGE_TOO_LARGE, Code.RECORD_LIST_TOO_LARGE)

Headers = list[tuple[str, bytes]]

_log = get_logger(__name__)


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


class DeadLetters:
    """Writes dead letters of one consumer group to one topic."""

    def __init__(self, producer: Producer, *, topic: str, group: str) -> None:
        self.topic = topic
        self._producer = producer
        self._group = group
        self._complaints = Complaints(_log.error)

    async def bury(self, record: Record, burial: Burial) -> None:
        """Write the dead letter; return once the broker has acknowledged it. Raise KafkaFailure if it does not.

        Where the topic does not take it whole, because of its size, less of the record is written.
        """
        headers = build_headers(record, burial, group=self._group)
        try:
            await self._producer.send(self.topic, record.key, record.value, [*record.headers, *headers])
        except RecordRejected as refusal:
            if refusal.code not in TOO_LARGE:
                raise
            self._complaints.about(
                "a dead letter is written without its value: its topic does not take it whole",
                f"{self.topic}: {refusal}",
                advice=f"raise max.message.bytes of {self.topic} above that of {record.topic}",
            )
            await self._bury_shortened(record, headers)

    async def _bury_shortened(self, record: Record, headers: Headers) -> None:
        omitted = (VALUE_OMITTED, str(len(record.value or b"")).encode())
        try:
            await self._producer.send(self.topic, record.key, b"", [*record.headers, *headers, omitted])
        except RecordRejected as refusal:
            if refusal.code not in TOO_LARGE:
                raise
            # What is large is its key or its headers.
            await self._producer.send(self.topic, None, b"", [*headers, omitted])


def build_headers(record: Record, burial: Burial, *, group: str) -> Headers:
    """Return the headers that say where a dead letter comes from and why it died; none of them is long."""
    texts = {
        "dlq-original-topic": record.topic,
        "dlq-original-partition": str(record.partition),
        "dlq-original-offset": str(record.offset),
        "dlq-original-timestamp": str(record.timestamp_ms),
        "dlq-consumer-group": group,
        "dlq-channel": shorten(burial.channel),
        "dlq-reason": burial.reason,
        "dlq-error-class": burial.error_class,
        "dlq-error-message": shorten(burial.error_message),
        "dlq-attempts": str(burial.attempts),
        "dlq-first-failed-at": burial.first_failed_at.astimezone(UTC).isoformat(),
        "dlq-last-failed-at": burial.last_failed_at.astimezone(UTC).isoformat(),
        REPLAY_COUNT: shorten((record.header(REPLAY_COUNT) or b"0").decode("ascii", "replace")),
    }
    return [(name, text.encode()) for name, text in texts.items()]
