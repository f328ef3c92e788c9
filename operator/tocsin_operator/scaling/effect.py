"""Rule 8: look whether a scale-up did what it was bought for.

Pods that wait for the same provider, the same database or the same quota finish no more when there are more of them,
and often less. So each scale-up is looked at once its pods have worked for a while. Where the group still has more to
do than it can and finishes hardly more than before, what it finishes is the downstream's ceiling: the number goes back
to what reaches that, and one step probes it later, each time less often. A provider that says itself that it holds
the pods back (429, a 4xx of SMTP) needs no experiment.
"""

from __future__ import annotations

import math

import msgspec

from tocsin_operator.scaling.busy import Busy, is_held_back
from tocsin_operator.scaling.model import Ceiling, Config, Effect, Finished, Observation, State

SPAN_SECONDS = 30.0
# Less than this share of what was finished before is no ceiling but an interruption: partitions change hands, and who
# gives them away first finishes what it has begun. That is waited for, but not for ever.
INTERRUPTED_SHARE = 0.5
LONGEST_INTERRUPTION_SECONDS = 120.0
# Pods under a ceiling are planned this full of their own speed, so that the downstream and not they are the limit.
CEILING_UTILISATION = 0.80
RELEASE_FACTOR = 1.10
STARTUP_SMOOTHING = 0.5
LONGEST_STARTUP_SECONDS = 600.0


def note_finished(observation: Observation, state: State) -> State:
    """Return the state with what the group has finished by now; the positions must be this observation's."""
    now_seconds = observation.time_seconds
    kept = tuple(each for each in state.finished if now_seconds - each.time_seconds <= SPAN_SECONDS)
    newest = Finished(time_seconds=now_seconds, records=sum(state.positions))
    return msgspec.structs.replace(state, finished=(*kept, newest))


def measure_finished(state: State) -> float | None:
    """Return what the group finished per second of late, None before there are two looks."""
    if len(state.finished) < 2:  # noqa: PLR2004 - a rate needs two points
        return None
    first, last = state.finished[0], state.finished[-1]
    return max(0.0, (last.records - first.records) / (last.time_seconds - first.time_seconds))


def learn_startup(observation: Observation, state: State) -> State:
    """Return the state with how long the last scale-up's pods took to become ready, once they all are."""
    since_seconds = state.awaited_since_seconds
    if since_seconds is None or observation.replicas.ready < observation.replicas.spec:
        return state
    seen = min(LONGEST_STARTUP_SECONDS, observation.time_seconds - since_seconds)
    known = state.startup_seconds
    startup = seen if known is None else known + STARTUP_SMOOTHING * (seen - known)
    return msgspec.structs.replace(state, startup_seconds=startup, awaited_since_seconds=None)


def await_effect(state: State, *, before: int, after: int, now_seconds: float) -> State:
    """Return the state that waits for the effect of going from `before` to `after` pods."""
    finished = measure_finished(state)
    if after <= before or before == 0 or not finished:
        return msgspec.structs.replace(state, effect=None)
    effect = Effect(
        start_seconds=now_seconds, replicas_before=before, replicas_after=after, finished_per_second=finished
    )
    return msgspec.structs.replace(state, effect=effect)


def check_effect(
    observation: Observation, state: State, config: Config, *, is_saturated: bool, busy: Busy | None
) -> State:
    """Return the state with what is known of the downstream's ceiling now."""
    state = _release(state, config, now_seconds=observation.time_seconds, is_saturated=is_saturated)
    finished = measure_finished(state)
    if finished and is_saturated and is_held_back(busy, state, config) and state.ceiling is None:
        return _set_ceiling(observation, state, config, finished, most=observation.replicas.spec)
    effect = state.effect
    if effect is None or finished is None:
        return state
    effect = _await_work(effect, observation, finished)
    if observation.time_seconds - effect.start_seconds < config.effect_seconds:
        return msgspec.structs.replace(state, effect=effect)
    if not is_saturated or _has_effect(effect, finished, config):
        return msgspec.structs.replace(state, effect=None)
    return _set_ceiling(observation, state, config, finished, most=effect.replicas_before)


def _await_work(effect: Effect, observation: Observation, finished_per_second: float) -> Effect:
    """Return the effect, to be looked for from now on if the pods are not all ready, or have not all got their work."""
    now_seconds = observation.time_seconds
    if observation.replicas.ready != observation.replicas.spec:
        return msgspec.structs.replace(effect, start_seconds=now_seconds, ready_seconds=None)
    ready_seconds = now_seconds if effect.ready_seconds is None else effect.ready_seconds
    is_interrupted = finished_per_second < INTERRUPTED_SHARE * effect.finished_per_second
    if is_interrupted and now_seconds - ready_seconds < LONGEST_INTERRUPTION_SECONDS:
        return msgspec.structs.replace(effect, start_seconds=now_seconds, ready_seconds=ready_seconds)
    return msgspec.structs.replace(effect, ready_seconds=ready_seconds)


def _has_effect(effect: Effect, finished_per_second: float, config: Config) -> bool:
    promised = effect.replicas_after / effect.replicas_before - 1
    return finished_per_second >= effect.finished_per_second * (1 + config.effect_share * promised)


def _set_ceiling(observation: Observation, state: State, config: Config, per_second: float, *, most: int) -> State:
    nominal = state.nominal_per_second
    enough = math.ceil(per_second / (CEILING_UTILISATION * nominal)) if nominal else most
    held_before = state.ceiling.hold_seconds if state.ceiling else config.ceiling_seconds / 2
    hold_seconds = min(2 * held_before, config.longest_ceiling_seconds)
    ceiling = Ceiling(
        per_second=per_second,
        replicas=max(1, min(enough, most)),
        hold_seconds=hold_seconds,
        until_seconds=observation.time_seconds + hold_seconds,
    )
    return msgspec.structs.replace(state, ceiling=ceiling, effect=None)


def _release(state: State, config: Config, *, now_seconds: float, is_saturated: bool) -> State:
    """Return the state without a ceiling that was exceeded, or that nobody has run into since it was to be probed."""
    ceiling = state.ceiling
    if ceiling is None:
        return state
    finished = measure_finished(state)
    is_exceeded = finished is not None and finished > RELEASE_FACTOR * ceiling.per_second
    is_over = now_seconds >= ceiling.until_seconds + config.ceiling_seconds and not is_saturated
    return msgspec.structs.replace(state, ceiling=None) if is_exceeded or is_over else state
