"""What a record means: which channels it is for, under which cursor each of them counts, and from when on. Pure.

A record that nobody can read, and a channel that the pipeline does not have, are planned too: they end as dead
letters, and nothing that ingestion accepted is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from tocsin_consumer.dead_letters import Burial, BurialReason
from tocsin_core.codec import accepted_at_of, decode, trace_id_of
from tocsin_core.commits import NO_CHANNEL
from tocsin_core.errors import MessageError, RetryRecordError, TocsinError
from tocsin_core.message import Notification, Record
from tocsin_core.retry_record import parse_retry_record

REPLAY_CHANNEL = "replay-channel"
"""The header that confines a replayed dead letter to the channel it died on."""


class Plan(NamedTuple):
    """What is to be done about one record."""

    origin: Record
    """The record itself, or the one that a record of a retry topic was before."""
    notification: Notification | None
    trace_id: str | None
    accepted_at: datetime
    channels: Mapping[str, Sequence[str]]
    """The channels to deliver on, by the cursor under which they count; a cursor that is missing has nothing to do."""
    not_before: datetime | None = None
    attempts: int = 0
    first_failed_at: datetime | None = None
    burial: Burial | None = None
    """Why there is nothing to deliver: the record itself is a dead letter."""


def plan_record(
    record: Record, *, channels: Sequence[str], now: datetime, retry_delay_seconds: int | None = None
) -> Plan:
    """Return the plan for a record in a pipeline that has these channels.

    `retry_delay_seconds` is the delay of the retry topic that the record comes from, None if from none. Nothing that
    stands in a record raises: what nobody can make anything of is a dead letter.
    """
    try:
        if retry_delay_seconds is None:
            return _plan_origin(record, channels=channels, now=now)
        return _plan_retry(record, channels=channels, now=now, delay_seconds=retry_delay_seconds)
    except Exception as error:  # noqa: BLE001 - a defect, but raised here it would end every owner of the partition
        return _build_burial_plan(record, BurialReason.UNDECODABLE, error, now)


def _plan_retry(record: Record, *, channels: Sequence[str], now: datetime, delay_seconds: int) -> Plan:
    try:
        deferred = parse_retry_record(record)
    except RetryRecordError as error:
        return _plan_burial(record, BurialReason.MALFORMED_RETRY, error, now)
    deferral = deferred.deferral
    plan = _plan_origin(deferred.origin, channels=channels, now=now)
    if plan.burial is not None:
        return plan
    return plan._replace(
        channels=_assign_cursors([deferral.channel], channels),
        not_before=_find_due(deferral.not_before_ms, now=now, delay_seconds=delay_seconds),
        attempts=deferral.attempts,
        first_failed_at=deferral.first_failed_at,
    )


def _find_due(not_before_ms: int, *, now: datetime, delay_seconds: int) -> datetime:
    """Return when a retry record is due: no later than its topic's delay from now, whatever clock wrote it.

    It is written with that delay, so it can only wait for longer where two clocks differ, and then for all behind it.
    """
    latest_ms = int(now.timestamp() * 1000) + delay_seconds * 1000
    return datetime.fromtimestamp(min(not_before_ms, latest_ms) / 1000, UTC)


def _plan_origin(record: Record, *, channels: Sequence[str], now: datetime) -> Plan:
    try:
        notification = decode(record.value)
    except MessageError as error:
        return _plan_burial(record, BurialReason.UNDECODABLE, error, now)
    wanted = _find_replayed(record) or notification.channels or channels
    trace_id = trace_id_of(record.header("traceparent"))
    return Plan(record, notification, trace_id, accepted_at_of(record, now=now), _assign_cursors(wanted, channels))


def _plan_burial(record: Record, reason: BurialReason, error: TocsinError, now: datetime) -> Plan:
    plan = _build_burial_plan(record, reason, error, now)
    trace_id = trace_id_of(record.header("traceparent"))
    return plan._replace(trace_id=trace_id, accepted_at=accepted_at_of(record, now=now))


def _build_burial_plan(record: Record, reason: BurialReason, error: Exception, now: datetime) -> Plan:
    burial = Burial(
        reason=reason,
        error_class=type(error).__name__,
        error_message=str(error),
        channel="",
        attempts=0,
        first_failed_at=now,
        last_failed_at=now,
    )
    return Plan(record, None, None, now, {NO_CHANNEL: ("",)}, burial=burial)


def _find_replayed(record: Record) -> list[str]:
    name = record.header(REPLAY_CHANNEL)
    return [name.decode("utf-8", "replace")] if name else []


def _assign_cursors(wanted: Sequence[str], channels: Sequence[str]) -> dict[str, Sequence[str]]:
    plan: dict[str, Sequence[str]] = {name: (name,) for name in wanted if name in channels}
    if len(plan) == len(wanted):
        return plan
    unknown = tuple(dict.fromkeys(name for name in wanted if name not in channels))
    return {**plan, NO_CHANNEL: unknown} if unknown else plan
