"""Rule 4, where the consumers' own counters can be read: what one pod can do, measured while it does it.

Finished records over busy time is a pod's speed at any load, where the throughput of a group that keeps up only says
what arrives. Busy time is slot-seconds over concurrency, or CPU time where that is larger: a pod may run out of either.
Time in which a provider holds a pod back is in neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from tocsin_operator.scaling.model import Config, ConsumerCounters, Observation, State, Work

SPAN_SECONDS = 30.0
# Below this share, what a pod does beside its work (polling, being scraped) is too much of what is measured.
LEAST_BUSY_SHARE = 0.10
LEAST_PROCESSED = 10
STALE_SECONDS = 60.0
# A pod that is not full shows its own speed and not the downstream's.
NOMINAL_SHARE = 0.80
SMOOTHING = 0.3
# From this share of the time on, one channel of several that is held back is what a pod's finished records speak of.
PARTIAL_SHARE = 0.25


class Busy(NamedTuple):
    """What pods did of late: the shares of their time they were busy or held back, and their speed while busy.

    `held_shares` says of each channel how much of the pods' time its provider held it back.
    """

    share: float
    throttled_share: float
    per_second: float | None
    held_shares: Mapping[str, float] = {}


def note_counters(observation: Observation, state: State) -> State:
    """Return the state with this look's counters, and the speed they show.

    Nobody asks the pods at each look (None); pods that were asked and did not answer (nothing) are forgotten.
    """
    now_seconds = observation.time_seconds
    is_fresh = state.counted_seconds is not None and now_seconds - state.counted_seconds <= STALE_SECONDS
    if observation.consumers is None and is_fresh:
        return state
    if not observation.consumers:
        return msgspec.structs.replace(state, counters=(), counted_seconds=None, work=())
    kept = tuple(each for each in state.work if now_seconds - each.time_seconds < SPAN_SECONDS)
    newest = _compare(observation, state)
    noted = msgspec.structs.replace(
        state,
        counters=observation.consumers,
        counted_seconds=now_seconds,
        work=(*kept, newest) if newest else kept,
    )
    return _learn(noted, measure_busy(noted))


def measure_busy(state: State) -> Busy | None:
    """Return what the pods did of late, None where no two looks at them can be compared."""
    pod_seconds = sum(each.pod_seconds for each in state.work)
    if pod_seconds == 0 or not state.counters:
        return None
    share = sum(each.busy_seconds for each in state.work) / pod_seconds
    throttled_share = sum(each.throttled_seconds for each in state.work) / pod_seconds
    names = {name for each in state.work for name in each.held_seconds}
    held_shares = {
        name: sum(each.held_seconds.get(name, 0.0) for each in state.work) / pod_seconds for name in sorted(names)
    }
    return Busy(share, throttled_share, _measure_speed(state), held_shares)


def _measure_speed(state: State) -> float | None:
    """Return what a busy pod processes per second, None where too little was seen."""
    telling = [each for each in state.work if not each.is_partial]
    pod_seconds, busy_seconds = sum(each.pod_seconds for each in telling), sum(each.busy_seconds for each in telling)
    processed = sum(each.processed for each in telling)
    is_telling = busy_seconds > 0 and busy_seconds >= LEAST_BUSY_SHARE * pod_seconds and processed >= LEAST_PROCESSED
    return processed / busy_seconds if is_telling else None


def is_held_back(busy: Busy | None, state: State, config: Config) -> bool:
    """Return whether providers hold the pods back so much that more of them would only wait as well.

    Where a channel is left out because of that, what its provider does says nothing of the others.
    """
    held = state.held_channels
    if busy is None or not held:
        return busy is not None and busy.throttled_share >= config.throttled_share
    served = [share for name, share in busy.held_shares.items() if name not in held]
    return max(served, default=0.0) >= config.throttled_share


def _learn(state: State, busy: Busy | None) -> State:
    if busy is None or busy.per_second is None:
        return state
    measured = _approach(state.measured_per_second, busy.per_second)
    nominal = _approach(state.nominal_per_second, measured) if busy.share < NOMINAL_SHARE else state.nominal_per_second
    return msgspec.structs.replace(state, measured_per_second=measured, nominal_per_second=nominal)


def _approach(known: float | None, seen: float) -> float:
    return seen if known is None else known + SMOOTHING * (seen - known)


def _compare(observation: Observation, state: State) -> Work | None:
    """Return what the pods that were there before did since; one that started again counts from its start."""
    if state.counted_seconds is None:
        return None
    elapsed_seconds = observation.time_seconds - state.counted_seconds
    before = {each.pod: each for each in state.counters}
    pairs = [(before[each.pod], each) for each in observation.consumers or () if each.pod in before]
    same = [(old, new) for old, new in pairs if new.processed_total >= old.processed_total]
    if elapsed_seconds <= 0 or not same:
        return None
    pod_seconds, held_seconds = elapsed_seconds * len(same), _measure_held_seconds(same)
    is_one_held = bool(state.held_channels) or (
        len(held_seconds) > 1 and max(held_seconds.values()) >= PARTIAL_SHARE * pod_seconds
    )
    return Work(
        time_seconds=observation.time_seconds,
        pod_seconds=pod_seconds,
        busy_seconds=sum(_measure_busy_seconds(old, new) for old, new in same),
        throttled_seconds=sum(max(0.0, new.throttled_seconds_total - old.throttled_seconds_total) for old, new in same),
        processed=sum(new.processed_total - old.processed_total for old, new in same),
        held_seconds=held_seconds,
        is_partial=is_one_held,
    )


def _measure_held_seconds(same: Sequence[tuple[ConsumerCounters, ConsumerCounters]]) -> dict[str, float]:
    held: dict[str, float] = {}
    for old, new in same:
        for name in old.held_seconds.keys() & new.held_seconds.keys():
            held[name] = held.get(name, 0.0) + max(0.0, new.held_seconds[name] - old.held_seconds[name])
    return held


def _measure_busy_seconds(old: ConsumerCounters, new: ConsumerCounters) -> float:
    slot_seconds = max(0.0, new.busy_slot_seconds_total - old.busy_slot_seconds_total)
    cpu_seconds = 0.0
    if old.cpu_seconds_total is not None and new.cpu_seconds_total is not None:
        cpu_seconds = max(0.0, new.cpu_seconds_total - old.cpu_seconds_total)
    return max(slot_seconds / max(1.0, new.concurrency), cpu_seconds)
