"""Bytes to notification and back, with CloudEvents 1.0 headers (Kafka binary mode) and W3C trace context.

The encoder's output is always run through the decoder before it is produced (`encode` does it): "nothing invalid
reaches Kafka" is then a property of this module and not of every caller's care.
Source of the header names: CloudEvents 1.0 Kafka Protocol Binding, section 3.2; W3C Trace Context, level 1.
"""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from tocsin_core.errors import MessageError
from tocsin_core.message import Notification, Record

EVENT_TYPE = "dev.tocsin.notification.v1"
UNREADABLE_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON of the wanted shape: the last of them for ten thousand brackets."""
TRACE_ID = slice(3, 35)
"""Where a valid traceparent holds its trace id."""
TRACEPARENT = re.compile(r"^00-(?P<trace_id>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")

_random = random.Random()  # noqa: S311 - ids of traces are no secrets, and the system's generator costs a system call
_NO_ZEROS = 1 << 191 | 1 << 63
"""The highest bit of a trace id and of the span id behind it: the standard forbids ids that are all zeros."""
_FIXED_HEADERS = (("ce_specversion", b"1.0"), ("ce_type", EVENT_TYPE.encode()), ("content-type", b"application/json"))
_decoder = msgspec.json.Decoder(Notification)
_encoder = msgspec.json.Encoder()


Headers = list[tuple[str, bytes]]


class Encoded(NamedTuple):
    """A notification ready for Kafka: key, value and headers."""

    key: bytes
    value: bytes
    headers: Headers


def decode(value: bytes | None) -> Notification:
    """Return the notification in a record's value. Raise MessageError, with the reason, for anything else."""
    if not value:
        raise MessageError("the record has no value")
    try:
        return _decoder.decode(value)
    except UNREADABLE_JSON as error:
        raise MessageError(f"not a notification: {error}") from error


def encode(notification: Notification, *, source: str, traceparent: str, accepted_at: datetime) -> Encoded:
    """Return key, value and headers for Kafka; the value is decoded again first, so what leaves here can be read.

    `source` is the CloudEvents source, for example `/pipelines/default/orders`. Raise MessageError if the
    notification would not survive the way back.
    """
    shared = build_shared_headers(source=source, traceparent=traceparent, accepted_at=accepted_at)
    return Encoded(*encode_beside(shared, notification))


def build_shared_headers(*, source: str, traceparent: str, accepted_at: datetime) -> Headers:
    """Return the headers that all notifications of one request have in common."""
    moment = accepted_at if accepted_at.tzinfo is UTC else accepted_at.astimezone(UTC)
    # ISO 8601 by msgspec ("...Z", in quotes): `isoformat` costs as much as decoding a notification.
    time = _encoder.encode(moment)[1:-2] + b"+00:00"
    return [
        *_FIXED_HEADERS,
        ("ce_source", source.encode()),
        ("ce_time", time),
        ("traceparent", traceparent.encode()),
    ]


def encode_beside(shared: Headers, notification: Notification) -> tuple[bytes, bytes, Headers]:
    """Return what `encode` returns, for a request whose shared headers were built once.

    A plain tuple: one with names costs half as much as encoding what it holds.
    """
    value = _encoder.encode(notification)
    decode(value)
    return notification.to_id.encode(), value, [*shared, ("ce_id", notification.id.encode())]


def make_traceparent(incoming: str | None = None) -> str:
    """Return `incoming` if it is a valid W3C traceparent, else a new, sampled one."""
    if incoming and TRACEPARENT.match(incoming):
        return incoming
    ids = f"{_random.getrandbits(192) | _NO_ZEROS:048x}"
    return f"00-{ids[:32]}-{ids[32:]}-01"


def trace_id_of(traceparent: str | bytes | None) -> str | None:
    """Return the trace id inside a traceparent, or None where there is none."""
    text = traceparent.decode("ascii", "replace") if isinstance(traceparent, bytes) else traceparent
    match = TRACEPARENT.match(text or "")
    return match["trace_id"] if match else None


def accepted_at_of(record: Record, *, now: datetime) -> datetime:
    """Return when ingestion accepted a record's notification: the `ce_time` header, else Kafka's timestamp.

    Both may come from somebody else's producer, which may count in microseconds or write the year 9999. So it is
    `now` where neither is a time, and never later than `now`: what comes from the future would never expire.
    """
    text = record.header("ce_time")
    try:
        if text is not None:
            moment = datetime.fromisoformat(text.decode("ascii"))
            return min(now, moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError:
        pass  # Kafka's own timestamp is the next best truth
    try:
        return min(now, datetime.fromtimestamp(record.timestamp_ms / 1000, UTC))
    except (ValueError, OverflowError, OSError):  # what the platform says of a year it does not know
        return now
