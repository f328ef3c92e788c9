"""One partition for as long as this process owns it: what the poll thread and the event loop share about it.

Two threads meet here without a lock, because every attribute has one writer: the poll thread counts what it handed
over, the event loop counts what it finished and moves the tracker. Each reads the other's numbers, which are plain
integers that only grow; a value read a moment too early means a pause or a commit a moment too late, nothing worse.
A partition that comes back after a rebalance is a new Assignment: nothing of the old epoch can touch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tocsin_core.message import Record
from tocsin_core.offsets import OffsetTracker


class Assignment:
    """A partition and one epoch of owning it."""

    __slots__ = (
        "committed",
        "epoch",
        "finished_bytes",
        "finished_records",
        "is_paused",
        "next_offset",
        "partition",
        "received_bytes",
        "received_records",
        "topic",
        "tracker",
    )

    def __init__(self, topic: str, partition: int, epoch: int) -> None:
        self.topic = topic
        self.partition = partition
        self.epoch = epoch
        # Written by the poll thread.
        self.next_offset = -1
        self.received_records = 0
        self.received_bytes = 0
        self.committed: int | None = None
        self.is_paused = False
        # Written by the event loop, except the tracker's fence; its `position` is read by the poll thread.
        self.tracker = OffsetTracker()
        self.finished_records = 0
        self.finished_bytes = 0

    @property
    def held_records(self) -> int:
        """Return how many records are in memory: handed over and not yet finished."""
        return self.received_records - self.finished_records

    @property
    def held_bytes(self) -> int:
        """Return how many bytes of keys, values and headers are in memory."""
        return self.received_bytes - self.finished_bytes

    def receive(self, record: Record) -> None:
        """Count a record that is handed over (poll thread)."""
        self.next_offset = record.offset + 1
        self.received_records += 1
        self.received_bytes += size_bytes(record)

    def finish(self, record: Record) -> None:
        """Count a record that has left memory, delivered or dropped (event loop)."""
        self.finished_records += 1
        self.finished_bytes += size_bytes(record)


Batch = Sequence[tuple[Assignment, Record]]


class Sink(Protocol):
    """What works on the records. Both methods run on the event loop."""

    def accept(self, batch: Batch) -> None:
        """Take in what one poll brought."""
        ...

    async def drain(self, assignments: Sequence[Assignment], budget_seconds: float) -> None:
        """Finish what has started on these partitions; return then, or when the budget is used up."""
        ...


def size_bytes(record: Record) -> int:
    """Return the bytes of a record's key, value and headers."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def decide_pause(assignment: Assignment, *, max_records: int, max_bytes: int) -> bool:
    """Decide whether fetching of a partition should rest: from the bound on, until half of it has been worked off."""
    share = 0.5 if assignment.is_paused else 1.0
    return assignment.held_records >= max_records * share or assignment.held_bytes >= max_bytes * share
