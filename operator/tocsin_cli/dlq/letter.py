"""A dead letter as its headers tell of it. Pure.

The names are those that the consumers write (`tocsin_consumer.dead_letters`). Whatever else is found in the topic,
somebody else's records and unreadable headers included, becomes a letter too, with empty fields: a command that is
asked what is in a topic must not stop at the first stranger.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from tocsin_consumer.dead_letters import REPLAY_COUNT, VALUE_OMITTED
from tocsin_core.codec import UNREADABLE_JSON
from tocsin_core.message import Record

ORIGINAL_TOPIC = "dlq-original-topic"
CHANNEL = "dlq-channel"
UNKNOWN = "-"


class Position(NamedTuple):
    """Where a record stands in the dead-letter topic, written `PARTITION:OFFSET`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of the dead-letter topic, and what its headers say."""

    record: Record
    topic: str
    """The topic it was read from when it died; empty where the record is not a dead letter of ours."""
    origin: str
    group: str
    channel: str
    reason: str
    error_class: str
    error_message: str
    attempts: int
    replay_count: int
    first_failed_at: str
    last_failed_at: str
    notification_id: str
    omitted_bytes: int | None
    """What its value measured, where this topic did not take that; None where the letter has its value."""

    @property
    def position(self) -> Position:
        """Return where it stands."""
        return Position(self.record.partition, self.record.offset)

    @property
    def died_at(self) -> datetime:
        """Return when it was written to the dead-letter topic, by Kafka's timestamp."""
        try:
            return datetime.fromtimestamp(self.record.timestamp_ms / 1000, UTC)
        except (ValueError, OverflowError, OSError):  # a year that the platform does not know
            return datetime.fromtimestamp(0, UTC)

    @property
    def key(self) -> str | None:
        """Return the key, bytes that are no text written as escapes."""
        return None if self.record.key is None else decode_text(self.record.key)


class _Identified(msgspec.Struct):
    id: str = ""


def read_letter(record: Record) -> Letter:
    """Return what a record says of itself; of a header that is there twice the last counts, as everywhere."""
    headers = {name: decode_text(value or b"") for name, value in record.headers}
    return Letter(
        record=record,
        topic=headers.get(ORIGINAL_TOPIC, ""),
        origin=f"{headers.get('dlq-original-partition', '')}:{headers.get('dlq-original-offset', '')}",
        group=headers.get("dlq-consumer-group", ""),
        channel=headers.get(CHANNEL, ""),
        reason=headers.get("dlq-reason", ""),
        error_class=headers.get("dlq-error-class", ""),
        error_message=headers.get("dlq-error-message", ""),
        attempts=_number(headers.get("dlq-attempts", "")),
        replay_count=_number(headers.get(REPLAY_COUNT, "")),
        first_failed_at=headers.get("dlq-first-failed-at", ""),
        last_failed_at=headers.get("dlq-last-failed-at", ""),
        notification_id=headers.get("ce_id", "") or _find_id(record.value),
        omitted_bytes=_number(headers[VALUE_OMITTED]) if VALUE_OMITTED in headers and not record.value else None,
    )


def decode_text(content: bytes) -> str:
    """Return bytes as text; what is no UTF-8 is written as escapes, so that nothing is hidden or guessed."""
    return content.decode("utf-8", "backslashreplace")


def escape_controls(text: str) -> str:
    """Return text that cannot drive a terminal: what a provider or a client wrote must not clear the screen."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0  # noqa: PLR2004 - far beyond any


def _find_id(value: bytes | None) -> str:
    try:
        return msgspec.json.decode(value or b"", type=_Identified).id
    except UNREADABLE_JSON:
        return ""
