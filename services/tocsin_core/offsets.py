"""Which offset may be committed. Pure: no Kafka, no clock, no threads.

Deliveries of one partition finish in any order, but Kafka remembers one number per partition: everything below it is
done. `OffsetTracker` turns the first into the second for one channel of one partition during one assignment (an
epoch). It also answers the two questions a graceful hand-over needs: what may still start (nothing above the highest
offset that has started, so nothing finishes beyond what can be committed), and whether everything that must finish has.

Offsets may have holes (compaction, transaction markers), so "contiguous" means: among those that were admitted.
Committing each record as it finishes was refused (it loses the slower ones below it); waiting for a whole batch was
refused too (one slow delivery would hold up every other recipient).

    admit(offset) ──► start(offset) ──► complete(offset)      begin_drain() ──► is_drained ──► fence()

Not thread-safe except for reading `position` and `is_fenced`, which are single attributes, and for `fence`: another
thread may end the epoch at any moment, so to a fenced tracker nothing is a mistake, and nothing moves it.
"""

from __future__ import annotations

from collections import deque

NOTHING_STARTED = -1


class OffsetTracker:
    """The admitted, started and completed offsets of one channel in one partition and epoch."""

    __slots__ = (
        "_ceiling",
        "_completed",
        "_highest_admitted",
        "_highest_started",
        "_open",
        "is_fenced",
        "passed",
        "position",
    )

    def __init__(self, position: int | None = None) -> None:
        """Begin at `position`, below which everything is done."""
        self._open: deque[int] = deque()
        self._completed: set[int] = set()
        self._highest_admitted = NOTHING_STARTED if position is None else position - 1
        self._highest_started = NOTHING_STARTED
        self._ceiling: int | None = None
        self.position = position
        """The offset to commit: everything admitted below it is complete. None until something is."""
        self.passed = 0
        """How many records the position has moved past."""
        self.is_fenced = False
        """Whether the epoch is over. A fenced tracker never moves again, whatever still finishes."""

    @property
    def gap(self) -> int:
        """Return how many records lie between the position and the highest admitted offset: what a drain may cost."""
        return len(self._open)

    @property
    def is_draining(self) -> bool:
        """Return whether the hand-over has begun."""
        return self._ceiling is not None

    @property
    def is_drained(self) -> bool:
        """Return whether the hand-over has begun and everything that must finish has finished."""
        return self._ceiling is not None and (not self._open or self._open[0] > self._ceiling)

    @property
    def finished_beyond(self) -> int:
        """Return how many records are complete above the position: those a new owner would deliver again."""
        return len(self._completed)

    def admit(self, offset: int) -> None:
        """Take note of a record that will be worked on. Raise ValueError unless offsets rise and no hand-over began."""
        if offset <= self._highest_admitted:
            raise ValueError(f"offset {offset} admitted after {self._highest_admitted}")
        if self.is_draining:
            raise ValueError(f"offset {offset} admitted while the partition is being handed over")
        self._highest_admitted = offset
        self._open.append(offset)

    def skip(self, offset: int) -> None:
        """Take note of a record that needs no work here. Raise ValueError as `admit` does."""
        self.admit(offset)
        self.complete(offset)

    def may_start(self, offset: int) -> bool:
        """Return whether work on an admitted record may start or go on; what it says of a fence may be true no more."""
        return not self.is_fenced and (self._ceiling is None or offset <= self._ceiling)

    def start(self, offset: int) -> None:
        """Take note that work on a record starts. Raise ValueError if a hand-over has begun below it."""
        if self._ceiling is not None and offset > self._ceiling:
            raise ValueError(f"offset {offset} started during the hand-over")
        self._highest_started = max(self._highest_started, offset)

    def complete(self, offset: int) -> None:
        """Take note that a record has reached its end, and move the position past what is done.

        After the fence this changes nothing: the partition is somebody else's.
        """
        if self.is_fenced:
            return
        self._completed.add(offset)
        while self._open and self._open[0] in self._completed:
            head = self._open.popleft()
            self._completed.remove(head)
            self.position = head + 1
            self.passed += 1

    def begin_drain(self) -> None:
        """Begin the hand-over: from now on nothing above the highest started offset may start."""
        if self._ceiling is None:
            self._ceiling = self._highest_started

    def fence(self) -> None:
        """End the epoch."""
        self.is_fenced = True
