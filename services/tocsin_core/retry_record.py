"""What waits in a retry topic: the original record, and in nine further headers where it comes from and when it is due.

Key, value and headers are the original bytes. The nine stand behind them, always all and always in this order, and
only a record that ends with exactly these is taken for one of ours: an original may have headers of the same names (a
framework's own, or a replayed record's), and gets them back untouched. The state of a delivery travels in the record
and nowhere else, so any consumer of the group can go on with it.
Another encoding (one header with JSON) was refused: Kafka's own tools show headers, and filters work on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from tocsin_core.errors import RetryRecordError
from tocsin_core.message import Record

CHANNEL = "retry-channel"
NOT_BEFORE = "retry-not-before"
ATTEMPTS = "retry-attempts"
FIRST_FAILED_AT = "retry-first-failed-at"
LAST_ERROR = "retry-last-error"
ORIGINAL_TOPIC = "retry-original-topic"
ORIGINAL_PARTITION = "retry-original-partition"
ORIGINAL_OFFSET = "retry-original-offset"
ORIGINAL_TIMESTAMP = "retry-original-timestamp"
NAMES = (
    *(CHANNEL, NOT_BEFORE, ATTEMPTS, FIRST_FAILED_AT, LAST_ERROR),
    *(ORIGINAL_TOPIC, ORIGINAL_PARTITION, ORIGINAL_OFFSET, ORIGINAL_TIMESTAMP),
)
MAX_ERROR_BYTES = 1024
MAX_CHANNEL_BYTES = 63
MAX_TOPIC_BYTES = 249
MAX_TIME_BYTES = 40
MAX_NUMBER = 2**63 - 1
MAX_ATTEMPTS = 1_000_000

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Deferral:
    """A delivery that goes on later: on which channel, when, and what has happened so far.

    What follows an earlier notification, or was handed over before its first answer, has not failed yet.
    `not_before_ms` is by the clock of whoever wrote it, and may be any number.
    """

    channel: str
    not_before_ms: int
    attempts: int
    first_failed_at: datetime | None
    last_error: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """A retry record, read: the original record and the deferral."""

    origin: Record
    deferral: Deferral

    def due_in_seconds(self, now: datetime) -> float:
        """Return how long it has to wait yet; 0 if it is due."""
        return max(0.0, self.deferral.not_before_ms / 1000 - now.timestamp())


def build_retry_headers(origin: Record, deferral: Deferral) -> Headers:
    """Return all headers of the retry record: the original's, and the nine."""
    texts = (
        deferral.channel,
        str(deferral.not_before_ms),
        str(deferral.attempts),
        deferral.first_failed_at.astimezone(UTC).isoformat() if deferral.first_failed_at else "",
        shorten(deferral.last_error),
        origin.topic,
        str(origin.partition),
        str(origin.offset),
        str(origin.timestamp_ms),
    )
    return (*origin.headers, *zip(NAMES, (text.encode() for text in texts), strict=True))


def parse_retry_record(record: Record) -> Deferred:
    """Return what a record of a retry topic holds. Raise RetryRecordError, with the reason, for anything else."""
    own = dict(record.headers[-len(NAMES) :])
    if tuple(own) != NAMES:
        raise RetryRecordError(f"its last {len(NAMES)} headers are not {NAMES[0]} to {NAMES[-1]}")
    origin = Record(
        topic=_read_text(own, ORIGINAL_TOPIC, MAX_TOPIC_BYTES),
        partition=_read_number(own, ORIGINAL_PARTITION, MAX_NUMBER),
        offset=_read_number(own, ORIGINAL_OFFSET, MAX_NUMBER),
        timestamp_ms=_read_number(own, ORIGINAL_TIMESTAMP, MAX_NUMBER, least=-1),
        key=record.key,
        value=record.value,
        headers=record.headers[: -len(NAMES)],
    )
    deferral = Deferral(
        channel=_read_text(own, CHANNEL, MAX_CHANNEL_BYTES),
        not_before_ms=_read_number(own, NOT_BEFORE, MAX_NUMBER),
        attempts=_read_number(own, ATTEMPTS, MAX_ATTEMPTS),
        first_failed_at=_read_time(own, FIRST_FAILED_AT),
        last_error=shorten((own[LAST_ERROR] or b"").decode(errors="replace")),
    )
    return Deferred(origin, deferral)


def shorten(text: str) -> str:
    """Return a text that fits into a header, cut between characters."""
    return text.encode(errors="replace")[:MAX_ERROR_BYTES].decode(errors="ignore")


def _read_text(headers: dict[str, bytes | None], name: str, most_bytes: int) -> str:
    value = headers[name] or b""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise RetryRecordError(f"{name} is no text") from error
    if not 0 < len(value) <= most_bytes:
        raise RetryRecordError(f"{name} has {len(value)} bytes; 1 to {most_bytes} can be")
    return text


def _read_number(headers: dict[str, bytes | None], name: str, most: int, *, least: int = 0) -> int:
    text = _read_text(headers, name, len(str(MAX_NUMBER)))
    number = int(text) if text.isascii() and text.removeprefix("-").isdecimal() else None
    if number is None or not least <= number <= most:
        raise RetryRecordError(f"{name} is {text!r}; a number from {least} to {most} can be")
    return number


def _read_time(headers: dict[str, bytes | None], name: str) -> datetime | None:
    if not headers[name]:
        return None
    text = _read_text(headers, name, MAX_TIME_BYTES)
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:  # a year that no time zone can be taken from
        raise RetryRecordError(f"{name} is {text!r}, which is no time") from error
