"""One channel in one partition: where it stands, what it holds in memory, and where it reads on.

A cursor is fed with every record of its partition, in order. What it cannot admit yet waits in its backlog. A cursor
whose backlog has outgrown its bound while others still have room *detaches*: it is fed no more by what the partition
brings, remembers where it stopped, and reads on from there by itself when its backlog has shrunk, until it has caught
up. So the slowest channel costs a bounded amount of memory and none of the others' time.

    ATTACHED ──backlog full──► DETACHED ──backlog low──► reading on ──┬─ still behind ──► DETACHED
        ▲                                                             │
        └─────────────────────────── caught up ───────────────────────┘
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from tocsin_consumer.journey import Leg
from tocsin_core.assignment import Assignment
from tocsin_core.commits import NO_CHANNEL
from tocsin_core.offsets import OffsetTracker


class Cursor:
    """The place of one channel in one partition, for one epoch."""

    __slots__ = (
        "assignment",
        "backlog",
        "began_at",
        "channel",
        "held_bytes",
        "held_records",
        "is_detached",
        "next_offset",
        "passed_before",
        "refill",
        "timer",
        "tracker",
    )

    def __init__(self, channel: str, assignment: Assignment, tracker: OffsetTracker) -> None:
        self.channel = channel
        self.assignment = assignment
        self.tracker = tracker
        self.backlog: deque[Leg] = deque()
        self.held_records = 0
        self.held_bytes = 0
        self.began_at = tracker.position or 0
        """Everything below was finished before this epoch."""
        self.next_offset = self.began_at
        """The first offset it has not been fed with."""
        self.is_detached = False
        self.refill: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.passed_before = 0
        """How many records the partition brought that lie below `began_at`."""

    @property
    def passed(self) -> int:
        """Return how many of the partition's records are behind it."""
        return self.tracker.passed + self.passed_before

    def hold(self, leg: Leg) -> None:
        """Put a record's leg at the end of the backlog."""
        self.backlog.append(leg)
        self.held_records += 1
        self.held_bytes += leg.journey.record_bytes

    def let_go(self, leg: Leg) -> None:
        """Take note that a leg that was held has left memory."""
        self.held_records -= 1
        self.held_bytes -= leg.journey.record_bytes

    def drop_backlog(self) -> None:
        """Forget what has not been admitted, and stop reading on."""
        for leg in self.backlog:
            self.let_go(leg)
        self.backlog.clear()
        if self.refill is not None:
            self.refill.cancel()
        if self.timer is not None:
            self.timer.cancel()


class Partition:
    """The cursors of one assigned partition."""

    __slots__ = ("assignment", "cursors", "next_offset", "processed")

    def __init__(self, assignment: Assignment, channels: Iterable[str], first_offset: int) -> None:
        assignment.open(channels, first_offset)
        self.assignment = assignment
        self.cursors = {name: Cursor(name, assignment, tracker) for name, tracker in assignment.cursors.items()}
        self.next_offset = first_offset
        """The first offset that the partition has not brought yet."""
        self.processed = 0

    @property
    def held_records(self) -> int:
        """Return how many records its cursors hold together."""
        return sum(cursor.held_records for cursor in self.cursors.values())

    def publish(self) -> int:
        """Tell the poll thread what the least loaded cursor holds; return how many more records are done everywhere."""
        channels = [each for each in self.cursors.values() if each.channel != NO_CHANNEL]
        attached = [each for each in channels if not each.is_detached]
        self.assignment.feeds_nobody = bool(channels) and not attached
        self.assignment.least_held_records = min([each.held_records for each in attached], default=0)
        self.assignment.least_held_bytes = min([each.held_bytes for each in attached], default=0)
        before, self.processed = self.processed, min([each.passed for each in self.cursors.values()])
        return self.processed - before

    def drop_backlog(self) -> None:
        """Forget what has not been admitted."""
        for cursor in self.cursors.values():
            cursor.drop_backlog()
        self.publish()
