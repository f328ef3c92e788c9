"""The notification as it lives in Kafka, and the record that carries it.

A frozen msgspec Struct rather than a pydantic model: decoding and validating one costs about 1 µs, and the same
definition decodes in ingestion (as the proof that what was produced can be read) and in the consumer.
Integers are accepted for ids at the HTTP edge only; in Kafka an id is always a string.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, NamedTuple

import msgspec

MAX_ID_CHARACTERS = 128
MAX_TITLE_CHARACTERS = 256
MAX_MESSAGE_CHARACTERS = 32_768
MAX_CHANNELS = 16
MAX_BODY_BYTES = 262_144
"""What one request body, and so one record's value, may measure. Below Kafka's default message.max.bytes."""

UserID = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARACTERS)]
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TITLE_CHARACTERS)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MESSAGE_CHARACTERS)]
ChannelName = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
ChannelNames = Annotated[list[ChannelName], msgspec.Meta(min_length=1, max_length=MAX_CHANNELS)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class Notification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One notification to one recipient: `{id, fromID, toID, message, title?, data?, channels?, expiresAt?}`."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    from_id: UserID = msgspec.field(name="fromID")
    to_id: UserID = msgspec.field(name="toID")
    message: Text
    title: Title | None = None
    data: dict[str, Any] | None = None
    channels: ChannelNames | None = None
    expires_at: Instant | None = msgspec.field(name="expiresAt", default=None)


class Record(NamedTuple):
    """One record read from Kafka, before anybody tried to understand it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def header(self, name: str) -> bytes | None:
        """Return the last header of that name, as Kafka's clients do, or None."""
        for key, value in reversed(self.headers):  # a dict of them all costs more than the few that are passed over
            if key == name:
                return value
        return None
