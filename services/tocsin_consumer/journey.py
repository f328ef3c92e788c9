"""A record on its way, and its way on each channel.

One `Journey` is one record as it was understood. Each channel's cursor has a `Leg` of it: what this record means for
that channel, which is one delivery as a rule, none where the record is not for the channel, and several only on the
cursor of those channels that the pipeline does not have. A leg that has ended completes the record on its cursor.
All of them are made for every record, and a msgspec Struct is made in a third of a dataclass's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tocsin_consumer.channels.base import PermanentFailure
from tocsin_consumer.planning import Plan
from tocsin_consumer.steps import Pending
from tocsin_core.assignment import Assignment
from tocsin_core.message import Notification, Record

if TYPE_CHECKING:
    from tocsin_consumer.cursor import Cursor


class LaneKey(NamedTuple):
    """What keeps its order: one recipient on one channel, within one epoch of one partition."""

    epoch: int
    key: bytes
    channel: str


class Journey(msgspec.Struct, eq=False):
    """One record on its way to all its channels. `notification` is None where nobody could read it."""

    assignment: Assignment
    record: Record
    record_bytes: int
    origin: Record
    """The record as it was produced, with the offset that it had then: itself, if it went through no retry topic."""
    notification: Notification | None
    trace_id: str | None
    accepted_at: datetime
    not_before: datetime | None = None

    @property
    def place(self) -> str:
        """Return what tells this record from any other: where it stood at first, and when it came there.

        The time, because a topic that is deleted and made again counts its offsets anew.
        """
        origin = self.origin
        return f"{origin.partition}:{origin.offset}:{origin.timestamp_ms}"


class Leg(msgspec.Struct, eq=False):
    """What one journey is for one cursor."""

    journey: Journey
    cursor: Cursor
    deliveries: tuple[Delivery, ...] = ()
    """Those that have not entered their lanes yet."""
    remaining: int = 0
    is_dropped: bool = False


class Reached(Enum):
    """Where a send has come to, if nothing is in the way."""

    SENT = auto()
    SENT_BEFORE = auto()
    BURIED_BEFORE = auto()
    NO_DEVICE = auto()
    FENCED = auto()


class Effect(msgspec.Struct, eq=False):
    """One notification on one device: what is claimed, and its end once it has one.

    `token` is that of a claim that nothing was sent under, "" where the next claim needs a new one.
    """

    token: str = ""
    end: Reached | PermanentFailure | None = None


class Delivery(msgspec.Struct, eq=False):
    """One notification on one channel: what a lane holds. What was decided and could not be done waits in `pending`."""

    leg: Leg
    channel: str
    slot: str
    lane: LaneKey
    attempts: int = 0
    waits: int = 0
    spared: int = 0
    """How often it failed while its channel was paused or on probation, which costs no attempt."""
    waited_seconds: float = 0.0
    """How long its lane has waited for an earlier delivery's end."""
    is_queued: bool = False
    """Whether later ones wait until it has ended."""
    started_at: float | None = None
    first_failed_at: datetime | None = None
    pending: Pending | None = None
    effects: dict[str, Effect] = msgspec.field(default_factory=dict)
    """By device, since it was first tried."""

    @property
    def journey(self) -> Journey:
        """Return the record it delivers."""
        return self.leg.journey

    def describe(self) -> dict[str, Any]:
        """Return the fields that every log line about this delivery carries."""
        journey, origin = self.leg.journey, self.leg.journey.origin
        return {
            "notification_id": journey.notification.id if journey.notification else None,
            "channel": self.channel,
            "attempts": self.attempts,
            "trace_id": journey.trace_id,
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": origin.offset,
        }


def build_journey(assignment: Assignment, record: Record, record_bytes: int, plan: Plan) -> Journey:
    """Return the journey of a record of so many bytes."""
    return Journey(
        assignment=assignment,
        record=record,
        record_bytes=record_bytes,
        origin=plan.origin,
        notification=plan.notification,
        trace_id=plan.trace_id,
        accepted_at=plan.accepted_at,
        not_before=plan.not_before,
    )


def build_leg(cursor: Cursor, journey: Journey, channels: Sequence[str], plan: Plan) -> Leg:
    """Return what a journey is for a cursor: a delivery on each of these channels, or one burial."""
    leg = Leg(journey, cursor, remaining=len(channels))
    notification, key = journey.notification, journey.record.key
    if key is None:
        key = notification.to_id.encode() if notification else b""
    epoch = journey.assignment.epoch
    leg.deliveries = tuple(
        [
            Delivery(
                leg,
                name,
                cursor.channel,
                LaneKey(epoch, key, name),
                attempts=plan.attempts,
                first_failed_at=plan.first_failed_at,
                pending=plan.burial,
            )
            for name in channels
        ]
    )
    return leg
