"""When each record was produced and how far its group is: lag in seconds without asking any clock but our own. Pure."""

from __future__ import annotations


class Ledger:
    """One topic with one group. Offsets are counted from 0, so nobody else may produce to it."""

    def __init__(self, partitions: int) -> None:
        self.produced_at: list[list[float]] = [[] for _ in range(partitions)]
        self.finished = [0] * partitions

    def measure_age(self, now: float) -> float:
        """Return the age of the oldest record that waits, in seconds; 0 where none does."""
        pairs = zip(self.produced_at, list(self.finished), strict=True)
        return max((now - times[done] for times, done in pairs if done < len(times)), default=0.0)

    @property
    def lag(self) -> int:
        """Return how many records wait."""
        return sum(map(len, self.produced_at)) - sum(self.finished)
