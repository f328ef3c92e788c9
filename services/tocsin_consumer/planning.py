"""What a record means: which channels it is for, under which cursor each of them counts, and from when on. Pure.

A record that nobody can read, and a channel that the pipeline does not have, are planned too: they end as dead
letters, and nothing that ingestion accepted is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tocsin_consumer.dead_letters import Burial, BurialReason
from tocsin_core.codec import accepted_at_of, decode, trace_id_of
from tocsin_core.commits import NO_CHANNEL
from tocsin_core.errors import MessageError
from tocsin_core.message import Notification, Record

REPLAY_CHANNEL = "replay-channel"
"""The header that confines a replayed dead letter to the channel it died on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done about one record."""

    notification: Notification | None
    trace_id: str | None
    accepted_at: datetime
    channels: Mapping[str, Sequence[str]]
    """The channels to deliver on, by the cursor under which they count; a cursor that is missing has nothing to do."""
    not_before: datetime | None = None
    burial: Burial | None = None
    """Why there is nothing to deliver: the record itself is a dead letter."""


def plan_record(record: Record, *, channels: Sequence[str], now: datetime) -> Plan:
    """Return the plan for a record in a pipeline that has these channels."""
    trace_id = trace_id_of(record.header("traceparent"))
    accepted_at = accepted_at_of(record, now=now)
    try:
        notification = decode(record.value)
    except MessageError as error:
        burial = _build_burial(error, now)
        return Plan(None, trace_id, accepted_at, {NO_CHANNEL: ("",)}, burial=burial)
    wanted = _find_replayed(record) or notification.channels or channels
    return Plan(notification, trace_id, accepted_at, _assign_cursors(wanted, channels))


def _find_replayed(record: Record) -> list[str]:
    name = record.header(REPLAY_CHANNEL)
    return [name.decode("utf-8", "replace")] if name else []


def _assign_cursors(wanted: Sequence[str], channels: Sequence[str]) -> dict[str, Sequence[str]]:
    plan: dict[str, Sequence[str]] = {name: (name,) for name in wanted if name in channels}
    unknown = tuple(dict.fromkeys(name for name in wanted if name not in channels))
    return {**plan, NO_CHANNEL: unknown} if unknown else plan


def _build_burial(error: MessageError, now: datetime) -> Burial:
    return Burial(
        reason=BurialReason.UNDECODABLE,
        error_class=type(error).__name__,
        error_message=str(error),
        channel="",
        attempts=0,
        first_failed_at=now,
        last_failed_at=now,
    )
