"""Rules 2 and 5: how far behind the group is, and how much arrives.

Arrivals are counted at the ends of the logs and never from what consumers finish: a group that is too small finishes
little, and would look like a group with little to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from statistics import pstdev
from typing import NamedTuple

import msgspec

from tocsin_core.lag import (
    CAUGHT_UP,
    EndOffsets,
    LagSeconds,
    append_end_offsets,
    measure_arrivals_per_second,
    measure_lag_seconds,
)
from tocsin_operator.scaling.model import Config, Observation, Peak, State

PEAK_SLICES = 30
# One record that stays at the end of a log that does not move is a transaction's marker or a delivery that is being
# retried; neither is served sooner by another pod.
SETTLED_RECORDS = 1
SETTLED_SECONDS = 60.0
BACKLOGS_KEPT = 4
SURGE_LOOKS = 6
LEAST_SURGE_LOOKS = 4
UNREST_FACTOR = 2
SETTLED = LagSeconds(0.0, is_at_least=False)


class Backlog(NamedTuple):
    """What is left to finish: all of it, and by partition without those whose last record waits for no pod."""

    total: int
    largest: int
    lags: tuple[int, ...]
    ages: tuple[LagSeconds, ...]
    settled: tuple[int, ...] = ()

    @property
    def unsettled(self) -> int:
        """Return how many records are left that a pod could finish."""
        return sum(self.lags)

    @property
    def age(self) -> LagSeconds:
        """Return the age of the oldest record left."""
        return self.age_of(range(len(self.ages)))

    def age_of(self, partitions: Iterable[int]) -> LagSeconds:
        """Return the age of the oldest record left in these partitions."""
        return max((self.ages[index] for index in partitions), default=CAUGHT_UP)


def note_offsets(observation: Observation, state: State, config: Config) -> State:
    """Return the state with this observation's ends, positions and arrival peak; it must be a trusted one."""
    now_seconds = observation.time_seconds
    ordered = sorted(observation.partitions, key=lambda offsets: offsets.partition)
    newest = EndOffsets(now_seconds, tuple(offsets.log_end for offsets in ordered))
    is_gap = not state.history or now_seconds - state.history[-1].time_seconds > config.gap_seconds
    history = append_end_offsets(
        state.history, newest, horizon_seconds=config.horizon_seconds, fine_seconds=2 * config.recent_seconds
    )
    noted = msgspec.structs.replace(
        state,
        history=history,
        positions=tuple(offsets.position for offsets in ordered),
        observed_since_seconds=now_seconds if is_gap else state.observed_since_seconds,
    )
    return msgspec.structs.replace(noted, peaks=_note_peak(noted, measure_arrival(noted, config), config))


def forget_offsets(state: State) -> State:
    """Return the state without what was seen of the logs: they are other logs now. Capacity stays."""
    return msgspec.structs.replace(
        forget_progress(state), history=(), channels=(), peaks=(), observed_since_seconds=None
    )


def forget_progress(state: State) -> State:
    """Return the state without what was seen of the group: from now on it stands elsewhere in the same logs."""
    return msgspec.structs.replace(
        state,
        positions=(),
        stalled_since=(),
        stirred_seconds=(),
        progressed_seconds=None,
        finished=(),
        settled=(),
        backlogs=(),
        run=None,
        effect=None,
    )


def measure_arrival(state: State, config: Config) -> float | None:
    """Return the mean arrival rate per second over the recent span, None before two intervals have passed."""
    return measure_arrivals_per_second(
        state.history, span_seconds=config.recent_seconds, shortest_seconds=2 * config.interval_seconds * 0.9
    )


def measure_surge(state: State, config: Config) -> float | None:
    """Return what surely arrives per second since the last look, None before the load's own unrest is known.

    Twice the unrest of the looks before is taken off, so that an unsteady load is not taken for a surge.
    """
    fine = state.history[-SURGE_LOOKS - 1 :]
    if len(fine) < LEAST_SURGE_LOOKS + 1 or fine[-1].time_seconds - fine[0].time_seconds > config.horizon_seconds:
        return None
    rates = [
        max(0, sum(after.ends) - sum(before.ends)) / (after.time_seconds - before.time_seconds)
        for before, after in pairwise(fine)
    ]
    return max(0.0, rates[-1] - UNREST_FACTOR * pstdev(rates[:-1]))


def measure_peak(state: State) -> float | None:
    """Return the highest arrival rate of the down window."""
    return max((peak.per_second for peak in state.peaks), default=None)


def is_window_full(state: State, now_seconds: float, config: Config) -> bool:
    """Return whether the whole down window was watched without a gap."""
    since_seconds = state.observed_since_seconds
    return since_seconds is not None and now_seconds - since_seconds >= config.down_window_seconds


def measure_backlog(observation: Observation, state: State) -> Backlog:
    """Return how far behind the group is, in records and in seconds.

    Without any pod a record is settled only if it already was when there were some: it might be the first of a new day.
    """
    ordered = sorted(observation.partitions, key=lambda offsets: offsets.partition)
    lags = [offsets.lag for offsets in ordered]
    before = state.history[-2].ends if len(state.history) > 1 else ()
    ages = tuple(
        _age_of(
            lag,
            measure_lag_seconds(index, offsets.position, state.history),
            may_be_settled=observation.replicas.ready > 0
            or (index in state.settled and before[index : index + 1] == (offsets.log_end,)),
        )
        for index, (lag, offsets) in enumerate(zip(lags, ordered, strict=True))
    )
    return Backlog(
        total=sum(lags),
        largest=max(lags, default=0),
        lags=tuple(0 if age is SETTLED else lag for lag, age in zip(lags, ages, strict=True)),
        ages=ages,
        settled=tuple(index for index, age in enumerate(ages) if age is SETTLED),
    )


def note_backlog(state: State, backlog: Backlog, records: int) -> State:
    """Return the state with this observation's backlog; `records` are those that pods can be bought for."""
    backlogs = (*state.backlogs, records)[-BACKLOGS_KEPT:]
    return msgspec.structs.replace(state, backlogs=backlogs, settled=backlog.settled)


def is_backlog_falling(state: State) -> bool:
    """Return whether the backlog is smaller than a few looks ago."""
    return len(state.backlogs) > 1 and state.backlogs[-1] < state.backlogs[0]


def _age_of(lag: int, age: LagSeconds, *, may_be_settled: bool) -> LagSeconds:
    is_settled = may_be_settled and 0 < lag <= SETTLED_RECORDS and age.seconds >= SETTLED_SECONDS
    return SETTLED if is_settled else age


def _note_peak(state: State, arrival: float | None, config: Config) -> tuple[Peak, ...]:
    now_seconds = state.history[-1].time_seconds
    slice_seconds = config.down_window_seconds / PEAK_SLICES
    kept = [
        peak
        for peak in state.peaks
        if peak.start_seconds + slice_seconds >= now_seconds - config.down_window_seconds
        and peak.start_seconds <= now_seconds
    ]
    if arrival is None:
        return tuple(kept)
    if kept and now_seconds - kept[-1].start_seconds < slice_seconds:
        last = kept.pop()
        return (*kept, Peak(start_seconds=last.start_seconds, per_second=max(last.per_second, arrival)))
    return (*kept, Peak(start_seconds=now_seconds, per_second=arrival))
