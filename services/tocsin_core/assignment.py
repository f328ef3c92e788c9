"""One partition for as long as this process owns it: what the poll thread and the event loop share about it.

Two threads meet here without a lock, because every attribute has one writer: the poll thread counts what it handed
over, the event loop counts what it took in and moves the cursors. Each reads the other's numbers, which are plain
integers; a value read a moment too early means a pause or a commit a moment too late, nothing worse.
A partition that comes back after a rebalance is a new Assignment: nothing of the old epoch can touch it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from tocsin_core.commits import Commit, build_commit, resume_positions
from tocsin_core.message import Record
from tocsin_core.offsets import OffsetTracker


class Assignment:
    """A partition and one epoch of owning it."""

    __slots__ = (
        "_began_at",
        "committed",
        "cursors",
        "epoch",
        "feeds_nobody",
        "first",
        "is_draining",
        "is_fenced",
        "is_paused",
        "leader_epoch",
        "least_held_bytes",
        "least_held_records",
        "next_offset",
        "partition",
        "received_bytes",
        "received_records",
        "taken_bytes",
        "taken_records",
        "topic",
    )

    def __init__(self, topic: str, partition: int, epoch: int, committed: Commit | None = None) -> None:
        """Begin an epoch after what is `committed`, or where the log begins."""
        self.topic = topic
        self.partition = partition
        self.epoch = epoch
        # Written by the poll thread.
        self.next_offset = -1
        self.first: tuple[int, int] | None = None
        """The offset and the timestamp of the first record, by which a log is known again."""
        self.leader_epoch = 0
        """The latest leader that wrote what was received."""
        self.received_records = 0
        self.received_bytes = 0
        self.committed = committed
        self.is_paused = False
        self.is_fenced = False
        """Whether the epoch is over: nothing that still finishes counts."""
        # Written by the event loop.
        self.is_draining = False
        """Whether the hand-over has begun: nothing new is taken in."""
        self.cursors: dict[str, OffsetTracker] = {}
        self.taken_records = 0
        self.taken_bytes = 0
        self.least_held_records = 0
        """What the channel that holds least still holds: the others must not keep it waiting for more."""
        self.least_held_bytes = 0
        self.feeds_nobody = False
        """Whether every channel reads on by itself, so that what is fetched now would be read a second time."""
        self._began_at: Commit | None = None

    @property
    def held_records(self) -> int:
        """Return how many records are in memory for the channel that has least to do."""
        return self.received_records - self.taken_records + self.least_held_records

    @property
    def held_bytes(self) -> int:
        """Return how many bytes of keys, values and headers they have."""
        return self.received_bytes - self.taken_bytes + self.least_held_bytes

    @property
    def commit(self) -> Commit | None:
        """Return what may be committed, or None while that is nothing new."""
        if not self.cursors:
            return None
        # The cursors go on while they are read here: each number was true, and together they promise no more than that.
        commit = build_commit({name: tracker.position or 0 for name, tracker in self.cursors.items()})
        return None if commit == self._began_at else commit

    @property
    def is_drained(self) -> bool:
        """Return whether everything that must finish before the hand-over has finished."""
        return all(tracker.is_drained for tracker in self.cursors.values())

    @property
    def finished_beyond(self) -> int:
        """Return how many deliveries are complete above their cursors: those a new owner would repeat."""
        return sum(tracker.finished_beyond for tracker in self.cursors.values())

    def is_same_log(self, record: Record, leader_epoch: int | None) -> bool:
        """Return whether a record below the next offset is one that was handed over before (poll thread).

        If not, the log is another one: its topic was deleted and made again, so it begins no higher than this epoch; or
        a later leader cut off its end and wrote it anew, which the record's leader epoch tells.
        """
        if self.first is None or (leader_epoch or 0) > self.leader_epoch:
            return False
        return record.offset > self.first[0] or (record.offset, record.timestamp_ms) == self.first

    def receive(self, record: Record, leader_epoch: int | None = None) -> None:
        """Count a record that is handed over (poll thread)."""
        self.leader_epoch = max(self.leader_epoch, leader_epoch or 0)
        if self.first is None:
            self.first = (record.offset, record.timestamp_ms)
        self.next_offset = record.offset + 1
        self.received_records += 1
        self.received_bytes += size_bytes(record)

    def take(self, record_bytes: int) -> None:
        """Count a record of that size that the event loop has taken in."""
        self.taken_records += 1
        self.taken_bytes += record_bytes

    def open(self, names: Iterable[str], first_offset: int) -> None:
        """Give each name a cursor (event loop), where the last commit left it or at the first offset there is.

        A log that begins below the commit is another one: its topic was deleted and made again.
        """
        commit = self.committed
        if commit is None or first_offset < commit.offset:
            commit = Commit(first_offset)
        positions = resume_positions(names, commit)
        self._began_at = build_commit(positions)
        self.cursors = {name: OffsetTracker(position) for name, position in positions.items()}
        if self.is_fenced:  # the poll thread may have ended the epoch just now
            self.fence()

    def begin_drain(self) -> None:
        """Begin the hand-over (event loop): nothing above the highest started offset of each cursor may start."""
        self.is_draining = True
        for tracker in self.cursors.values():
            tracker.begin_drain()

    def fence(self) -> None:
        """End the epoch."""
        self.is_fenced = True
        for tracker in self.cursors.values():
            tracker.fence()


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
    total = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:  # a plain loop: this runs twice for every record
        total += len(name) + len(value or b"")
    return total


def decide_pause(assignment: Assignment, *, max_records: int, max_bytes: int) -> bool:
    """Decide whether fetching of a partition should rest: from the bound on, until half of it has been worked off.

    Also while nobody is fed by it: else it would run ahead to the log's end, and all of that be read once more.
    """
    share = 0.5 if assignment.is_paused else 1.0
    if assignment.feeds_nobody:
        return True
    return assignment.held_records >= max_records * share or assignment.held_bytes >= max_bytes * share
