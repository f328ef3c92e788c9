"""Rule 3: partitions that more pods do not help.

A sum over partitions hides where the trouble is, and buys pods that get other partitions. Three kinds are told apart:
one that is *stuck* waits for nothing a pod could bring (a poisoned record, a consumer that hangs); one that is *hot*
receives more than a pod can do; one that is *behind* carries a backlog that even a pod of its own works off too
slowly. A stuck one buys nothing. The other two buy, at most, a pod that they hardly have to share.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tocsin_operator.scaling.demand import Backlog
from tocsin_operator.scaling.model import Config, Observation, State

# Shares of the load are taken over this span, so that a few records more or less do not make a partition hot.
SHARE_SECONDS = 60.0
# So many times the mean load or the mean backlog is one partition's trouble; less is the group's.
HOT_FACTOR = 2
BEHIND_FACTOR = 3


class Partitions(NamedTuple):
    """Which partitions are which; `ordinary` are all that are nothing else. `shares` are their parts of the load."""

    stuck: tuple[int, ...]
    hot: tuple[int, ...]
    behind: tuple[int, ...]
    ordinary: tuple[int, ...]
    shares: tuple[float, ...]

    @property
    def lonely(self) -> tuple[int, ...]:
        """Return the partitions that need a pod which they hardly have to share."""
        return tuple(sorted({*self.hot, *self.behind}))


def note_progress(observation: Observation, state: State, config: Config) -> State:
    """Return the state with since when each partition stands still although records wait in it.

    To be called before this observation's positions are noted. One that stood still for long and moves once still
    counts: where every request of a partition hangs until its time-out, a record is finished now and then.
    """
    now_seconds = observation.time_seconds
    ordered = sorted(observation.partitions, key=lambda offsets: offsets.partition)
    since = [*state.stalled_since, *([None] * len(ordered))][: len(ordered)]
    stirred = [*state.stirred_seconds, *([None] * len(ordered))][: len(ordered)]
    progressed_seconds = state.progressed_seconds
    for index, offsets in enumerate(ordered):
        before = state.positions[index] if index < len(state.positions) else None
        has_moved = before is not None and offsets.position > before
        has_only_stirred = has_moved and _was_stuck(since[index], stirred[index], now_seconds, config.stuck_seconds)
        if before is None or offsets.lag == 0 or (has_moved and not has_only_stirred):
            since[index] = stirred[index] = None
            progressed_seconds = now_seconds if has_moved else progressed_seconds
        elif has_only_stirred:
            stirred[index] = now_seconds
        elif since[index] is None:
            since[index] = now_seconds
    return msgspec.structs.replace(
        state,
        stalled_since=tuple(since),
        stirred_seconds=tuple(stirred),
        progressed_seconds=progressed_seconds,
    )


def _was_stuck(since: float | None, stirred: float | None, now_seconds: float, stuck_seconds: float) -> bool:
    """Return whether a partition that moves now had stood still, but for one move, for as long as makes it stuck."""
    if since is None or now_seconds - since < stuck_seconds:
        return False
    return stirred is None or now_seconds - stirred >= stuck_seconds


def classify(
    backlog: Backlog,
    state: State,
    config: Config,
    *,
    arrival_per_second: float | None,
    capacity_per_second: float | None,
) -> Partitions:
    """Return which partitions are stuck, hot and behind; the last two need a known capacity."""
    shares = measure_shares(state)
    stuck = find_stuck(backlog, state, config)
    served = [index for index in range(len(backlog.lags)) if index not in stuck]
    hot: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    if capacity_per_second:
        limit = config.utilisation_up * capacity_per_second
        hot = _find_hot(shares, served, arrival_per_second or 0.0, limit)
        behind = _find_behind(backlog, served, config, capacity_per_second)
    apart = {*hot, *behind}
    ordinary = tuple(index for index in served if index not in apart)
    return Partitions(tuple(sorted(stuck)), hot, behind, ordinary, shares)


def find_stuck(backlog: Backlog, state: State, config: Config) -> frozenset[int]:
    """Return the partitions that stood still for long while another moved; never more than half of all.

    A whole group that stands still is another story, and a slow one moves partition by partition.
    """
    moved_seconds = state.progressed_seconds
    if moved_seconds is None:
        return frozenset()
    now_seconds = state.history[-1].time_seconds
    stuck = frozenset(
        index
        for index, since in enumerate(state.stalled_since)
        if since is not None
        and backlog.lags[index] > 0
        and now_seconds - since >= config.stuck_seconds
        and moved_seconds > since
    )
    return stuck if 2 * len(stuck) <= len(backlog.lags) else frozenset()


def measure_shares(state: State) -> tuple[float, ...]:
    """Return each partition's share of what arrived lately, an equal one where nothing did."""
    newest = state.history[-1]
    oldest = next(
        (sample for sample in state.history if newest.time_seconds - sample.time_seconds <= SHARE_SECONDS), newest
    )
    grown = [max(0, end - start) for end, start in zip(newest.ends, oldest.ends, strict=True)]
    total = sum(grown)
    return tuple(each / total if total else 1 / len(grown) for each in grown)


def _find_hot(
    shares: tuple[float, ...], served: list[int], per_second: float, limit_per_second: float
) -> tuple[int, ...]:
    least = max(HOT_FACTOR * per_second / len(shares), limit_per_second)
    return tuple(index for index in served if per_second * shares[index] > least)


def _find_behind(backlog: Backlog, served: list[int], config: Config, capacity_per_second: float) -> tuple[int, ...]:
    mean = sum(backlog.lags) / len(backlog.lags)
    least = max(BEHIND_FACTOR * mean, config.drain_seconds * capacity_per_second)
    return tuple(index for index in served if backlog.lags[index] > least)
