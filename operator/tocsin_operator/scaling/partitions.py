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


def note_progress(observation: Observation, state: State) -> State:
    """Return the state with since when each partition stands still although records wait in it.

    To be called before this observation's positions are noted.
    """
    now_seconds = observation.time_seconds
    ordered = sorted(observation.partitions, key=lambda offsets: offsets.partition)
    known = len(state.positions)
    moved = [
        index >= known or offsets.position > state.positions[index] or offsets.lag == 0
        for index, offsets in enumerate(ordered)
    ]
    has_progress = any(offsets.position > position for offsets, position in zip(ordered, state.positions, strict=False))
    before = (*state.stalled_since, *([None] * len(ordered)))
    return msgspec.structs.replace(
        state,
        stalled_since=tuple(
            None if has_moved else (now_seconds if since is None else since)
            for has_moved, since in zip(moved, before, strict=False)
        ),
        progressed_seconds=now_seconds if has_progress else state.progressed_seconds,
    )


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
