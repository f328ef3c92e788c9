"""Offsets to lag. Pure: what Kafka said goes in, what it means comes out.

Lag is counted in records and in seconds. Only records need a definition here; seconds need a history of end offsets,
because the age of a backlog is the time since the log's end stood where the group's commit stands now.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """What Kafka says of one partition: where its log starts and ends, and what the group has committed.

    `committed` is None where the group has no commit there yet; reading then starts at the log's start, because
    Tocsin's consumers run with `auto.offset.reset=earliest`.
    """

    partition: int
    log_start: int
    log_end: int
    committed: int | None

    @property
    def position(self) -> int:
        """Return the first offset the group has still to finish: a commit below the log's start counts from there."""
        return max(self.log_start, self.log_start if self.committed is None else self.committed)

    @property
    def lag(self) -> int:
        """Return how many records are left to finish, never negative."""
        return max(0, self.log_end - self.position)
