"""A record on its way, and its way on each channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from tocsin_consumer.dead_letters import Burial
from tocsin_core.assignment import Assignment
from tocsin_core.message import Notification, Record


class LaneKey(NamedTuple):
    """What keeps its order: one recipient on one channel, within one epoch of one partition."""

    epoch: int
    key: bytes
    channel: str


@dataclass(slots=True, eq=False)
class Journey:
    """One record on its way to all its channels. `notification` is None where nobody could read it."""

    assignment: Assignment
    record: Record
    notification: Notification | None
    trace_id: str | None
    accepted_at: datetime
    deliveries: tuple[Delivery, ...] = ()
    remaining: int = 0
    is_dropped: bool = False


@dataclass(slots=True, eq=False)
class Delivery:
    """One notification on one channel: what a lane holds. A dead letter that has been decided on waits in `burial`."""

    journey: Journey
    channel: str
    slot: str
    lane: LaneKey
    attempts: int = 0
    waits: int = 0
    started_at: float | None = None
    first_failed_at: datetime | None = None
    burial: Burial | None = field(default=None)

    def describe(self) -> dict[str, Any]:
        """Return the fields that every log line about this delivery carries."""
        notification = self.journey.notification
        return {
            "notification_id": notification.id if notification else None,
            "channel": self.channel,
            "attempts": self.attempts,
            "trace_id": self.journey.trace_id,
            "topic": self.journey.record.topic,
            "partition": self.journey.record.partition,
            "offset": self.journey.record.offset,
        }
