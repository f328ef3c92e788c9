"""Offsets to lag. Pure: what Kafka said goes in, what it means comes out.

Lag is counted in records and in seconds. Only records need a definition here; seconds need a history of end offsets,
because the age of a backlog is the time since the log's end stood where the group's commit stands now. Reading the
timestamp of the record at the commit was refused: it costs a fetch per partition and trusts the producer's clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """What Kafka says of one partition: where its log starts and ends, and what the group has committed.

    `committed` is None where the group has no commit there yet; reading then starts at the log's start, because
    Tocsin's consumers run with `auto.offset.reset=earliest`. `leads` says how far each channel is ahead of the commit,
    and is empty where all stand together.
    """

    partition: int
    log_start: int
    log_end: int
    committed: int | None
    leads: Mapping[str, int] = field(default_factory=dict)

    @property
    def position(self) -> int:
        """Return the first offset the group has still to finish: a commit below the log's start counts from there."""
        return max(self.log_start, self.log_start if self.committed is None else self.committed)

    @property
    def lag(self) -> int:
        """Return how many records are left to finish, never negative."""
        return max(0, self.log_end - self.position)

    def position_of(self, channel: str) -> int:
        """Return the first offset that a channel has still to finish; one the commit does not know is foremost."""
        lead = self.leads.get(channel, max(self.leads.values(), default=0))
        return max(self.log_start, lead + (self.log_start if self.committed is None else self.committed))

    def leave_out(self, channels: Collection[str]) -> PartitionOffsets:
        """Return the same as if these channels were not there: committed is what the others have finished."""
        others = [lead for name, lead in self.leads.items() if name not in channels]
        if self.committed is None or not others:
            return self
        return replace(self, committed=self.committed + min(others), leads={})


@dataclass(frozen=True, slots=True)
class EndOffsets:
    """Where the partitions' logs ended at one time; `ends[p]` is partition p's."""

    time_seconds: float
    ends: tuple[int, ...]


class LagSeconds(NamedTuple):
    """The age of the oldest record left to finish; `is_at_least` when the history does not reach back that far."""

    seconds: float
    is_at_least: bool


CAUGHT_UP = LagSeconds(0.0, is_at_least=False)
HISTORY_STEPS = 48  # samples kept of the older part of a history: its resolution is a fiftieth of its horizon


def append_end_offsets(
    history: Sequence[EndOffsets], newest: EndOffsets, *, horizon_seconds: float, fine_seconds: float
) -> tuple[EndOffsets, ...]:
    """Return the history with `newest`: all of the last `fine_seconds`, thinned before that, nothing past the horizon.

    A partition that is new in `newest` gets the end it had before it existed: zero.
    """
    width = len(newest.ends)
    step_seconds = horizon_seconds / HISTORY_STEPS
    kept: list[EndOffsets] = []
    for sample in history:
        age_seconds = newest.time_seconds - sample.time_seconds
        is_spaced = not kept or sample.time_seconds - kept[-1].time_seconds >= step_seconds
        if 0 < age_seconds <= horizon_seconds and (age_seconds <= fine_seconds or is_spaced):
            kept.append(_widen(sample, width))
    return (*kept, newest)


def _widen(sample: EndOffsets, width: int) -> EndOffsets:
    missing = width - len(sample.ends)
    return sample if missing <= 0 else EndOffsets(sample.time_seconds, sample.ends + (0,) * missing)


def measure_lag_seconds(partition: int, position: int, history: Sequence[EndOffsets]) -> LagSeconds:
    """Return how long ago the partition's log ended at `position`, by interpolation between two samples.

    The newest sample is now. Without a sample old enough the answer is the history's length, as a lower bound.
    """
    if not history or position >= history[-1].ends[partition]:
        return CAUGHT_UP
    now_seconds = history[-1].time_seconds
    following = bisect_right(history, position, key=lambda sample: sample.ends[partition])
    if following == 0:
        return LagSeconds(now_seconds - history[0].time_seconds, is_at_least=True)
    before, after = history[following - 1], history[following]
    share = (position - before.ends[partition]) / (after.ends[partition] - before.ends[partition])
    reached_seconds = before.time_seconds + share * (after.time_seconds - before.time_seconds)
    return LagSeconds(now_seconds - reached_seconds, is_at_least=False)


def measure_arrivals_per_second(
    history: Sequence[EndOffsets], *, span_seconds: float, shortest_seconds: float = 0.0
) -> float | None:
    """Return the mean rate at which the logs grew over the last `span_seconds`; None below `shortest_seconds`."""
    if len(history) < 2:  # noqa: PLR2004 - a rate needs two points
        return None
    newest = history[-1]
    older = [sample for sample in history[:-1] if newest.time_seconds - sample.time_seconds >= span_seconds]
    oldest = older[-1] if older else history[0]
    elapsed_seconds = newest.time_seconds - oldest.time_seconds
    if elapsed_seconds <= 0 or elapsed_seconds < shortest_seconds:
        return None
    return max(0.0, (sum(newest.ends) - sum(oldest.ends)) / elapsed_seconds)
