"""Rule 4: what one pod can do.

The consumers' own counters say it at any load (see `busy`). Without them the only honest measurement is the throughput
of a group that has more to do than it can: a group that keeps up shows what arrives, not what it could finish. So
throughput counts only while nearly all partitions that receive anything are well behind, and not just constantly so,
and while the same pods run and all are ready. The best of the last few such times is the estimate; a short one does
not outvote a long one, because commits come in steps.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tocsin_operator.scaling.demand import Backlog
from tocsin_operator.scaling.model import CapacitySource, CapacityWindow, Config, Observation, Run, State

SHORTEST_INTERVALS = 3
LONGEST_INTERVALS = 10
UNMOVED_INTERVALS = 30  # how long a slow change has to show
WINDOWS_KEPT = 3
# The owner's hint holds until this many windows say that pods do less.
WINDOWS_AGAINST_HINT = 2
LAGGING_SHARE = 0.75
COUNTERS_TRUSTED_SHARE = 0.7
RECENT_WINDOW_SECONDS = 300.0


class Capacity(NamedTuple):
    """What one pod finishes per second, and how that is known."""

    per_second: float | None
    source: CapacitySource


def estimate_capacity(state: State, config: Config) -> Capacity:
    """Return what the pods' counters say, else the owner's hint, unless pods were seen to do less; else the best seen.

    Counters can be wrong, too: a pod that waits for something that is not counted as busy does less than they promise.
    """
    observed = _best(state.windows)
    if state.measured_per_second is not None and state.counters:
        recent = _best(_select_recent(state))
        is_wrong = recent is not None and recent < COUNTERS_TRUSTED_SHARE * state.measured_per_second
        return Capacity(recent, "Observed") if is_wrong else Capacity(state.measured_per_second, "Measured")
    hint = config.capacity_per_second
    if hint is None:
        return Capacity(observed, "Observed" if observed else "Unknown")
    is_refuted = observed is not None and observed < hint and len(state.windows) >= WINDOWS_AGAINST_HINT
    return Capacity(observed, "Observed") if is_refuted else Capacity(hint, "Hint")


def _select_recent(state: State) -> tuple[CapacityWindow, ...]:
    """Return the windows of the last minutes, none if they are too few to speak against the pods' counters."""
    now_seconds = state.history[-1].time_seconds if state.history else 0.0
    recent = tuple(each for each in state.windows if now_seconds - each.start_seconds <= RECENT_WINDOW_SECONDS)
    return recent if len(recent) >= WINDOWS_AGAINST_HINT else ()


def learn_capacity(observation: Observation, state: State, backlog: Backlog, config: Config) -> State:
    """Return the state with what this observation teaches about capacity: mostly nothing.

    Under a ceiling of the downstream, throughput says what that takes and not what a pod can do.
    """
    if state.ceiling is not None or not is_saturated(observation, state, backlog, config):
        return msgspec.structs.replace(state, run=None)
    run = _continue_run(observation, state, backlog)
    window = _measure_window(observation, run, backlog, config)
    windows = _note_window(state.windows, window) if window else state.windows
    longest = LONGEST_INTERVALS if window else UNMOVED_INTERVALS
    if observation.time_seconds - run.start_seconds >= longest * config.interval_seconds:
        run = _start_run(observation, state, backlog)
    return msgspec.structs.replace(state, run=run, windows=windows)


def _start_run(observation: Observation, state: State, backlog: Backlog) -> Run:
    finished = sum(state.positions)
    return Run(
        start_seconds=observation.time_seconds,
        start_age_seconds=None if backlog.age.is_at_least else backlog.age.seconds,
        start_backlog=backlog.unsettled,
        start_finished=finished,
        finished=finished,
        replicas=observation.replicas.ready,
    )


def _continue_run(observation: Observation, state: State, backlog: Backlog) -> Run:
    """Return the run going on, or a new one: other pods, or a look without any progress (a rebalance), end it."""
    run, finished = state.run, sum(state.positions)
    if run is None or run.replicas != observation.replicas.ready or finished <= run.finished:
        return _start_run(observation, state, backlog)
    return msgspec.structs.replace(run, finished=finished)


def _measure_window(observation: Observation, run: Run, backlog: Backlog, config: Config) -> CapacityWindow | None:
    """Return the run's throughput per pod, once it is long enough and the lag moved meanwhile."""
    span_seconds = observation.time_seconds - run.start_seconds
    if span_seconds < _shortest_seconds(config):
        return None
    per_second = (run.finished - run.start_finished) / span_seconds
    if not _has_moved(run, backlog, per_second, config):
        return None
    counted_seconds = min(span_seconds, LONGEST_INTERVALS * config.interval_seconds)
    rate = per_second / run.replicas
    return CapacityWindow(start_seconds=run.start_seconds, span_seconds=counted_seconds, per_second=rate)


def _has_moved(run: Run, backlog: Backlog, per_second: float, config: Config) -> bool:
    """Return whether lag grew or shrank: constant lag may be no more than the time from finishing to committing.

    In seconds where that is known, because such a lag in records moves with every change of the rate.
    """
    if run.start_age_seconds is None:
        return abs(backlog.unsettled - run.start_backlog) >= per_second * config.interval_seconds
    return abs(backlog.age.seconds - run.start_age_seconds) >= config.interval_seconds


def remember_capacity(per_second: float, config: Config) -> tuple[CapacityWindow, ...]:
    """Return what an earlier process learned, as one full window."""
    span_seconds = LONGEST_INTERVALS * config.interval_seconds
    return (CapacityWindow(start_seconds=0.0, span_seconds=span_seconds, per_second=per_second),)


def _shortest_seconds(config: Config) -> float:
    # A little less than the number of intervals, because a loop's passes are never exactly on time.
    return (SHORTEST_INTERVALS - 0.2) * config.interval_seconds


def is_saturated(observation: Observation, state: State, backlog: Backlog, config: Config) -> bool:
    """Return whether all pods run and nearly all partitions that receive anything are well behind."""
    replicas = observation.replicas
    if replicas.ready == 0 or replicas.ready != replicas.spec:
        return False
    if any(
        offsets.committed is not None and offsets.committed < offsets.log_start for offsets in observation.partitions
    ):
        return False  # records that expired unread look finished
    first, last = state.history[0].ends, state.history[-1].ends
    receiving = [index for index, end in enumerate(last) if end > first[index] or backlog.ages[index].seconds > 0]
    lagging = [index for index in receiving if backlog.ages[index].seconds >= config.quiet_seconds]
    return bool(lagging) and len(lagging) >= LAGGING_SHARE * len(receiving)


def _note_window(windows: tuple[CapacityWindow, ...], newest: CapacityWindow) -> tuple[CapacityWindow, ...]:
    others = [window for window in windows if window.start_seconds != newest.start_seconds]
    return (*others, newest)[-WINDOWS_KEPT:]


def _best(windows: tuple[CapacityWindow, ...]) -> float | None:
    if not windows:
        return None
    longest_seconds = max(window.span_seconds for window in windows)
    return max(window.per_second for window in windows if window.span_seconds >= longest_seconds / 2)
