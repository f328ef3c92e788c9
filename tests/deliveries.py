"""One delivery on its own, as a lane would hold it."""

from __future__ import annotations

from datetime import UTC, datetime

from tocsin_consumer.channels.base import Envelope
from tocsin_consumer.cursor import Cursor
from tocsin_consumer.journey import Delivery, Journey, LaneKey, Leg
from tocsin_core.assignment import Assignment
from tocsin_core.message import Notification, Record
from tocsin_core.offsets import OffsetTracker
from tocsin_core.users import Profile


def build_delivery(
    offset: int = 0,
    *,
    channel: str = "push",
    assignment: Assignment | None = None,
    accepted_at: datetime | None = None,
) -> Delivery:
    """Return the delivery of notification `n<offset>`."""
    assignment = assignment or Assignment("orders", 0, 1)
    record = Record(assignment.topic, assignment.partition, offset, 0, b"2", b"{}", ())
    journey = Journey(
        assignment=assignment,
        record=record,
        record_bytes=3,
        origin=record,
        notification=Notification(id=f"n{offset}", from_id="1", to_id="2", message="hi"),
        trace_id=None,
        accepted_at=accepted_at or datetime.now(UTC),
    )
    leg = Leg(journey, Cursor(channel, assignment, OffsetTracker()), remaining=1)
    return Delivery(leg, channel=channel, slot=channel, lane=LaneKey(assignment.epoch, b"2", channel))


def build_envelope(delivery: Delivery, profile: Profile) -> Envelope:
    """Return what a channel is given of it."""
    journey = delivery.journey
    record, notification = journey.record, journey.notification
    assert notification is not None
    where = (record.topic, record.partition, record.offset)
    return Envelope(notification, profile, None, *where, journey.accepted_at)
