"""How many consumers a pipeline needs: one promise in seconds, measured demand, measured capacity.

The field sizes on messages of lag, which needs lag to exist and knows nothing of what a pod can do. Here an ordered
chain of small rules answers, the first that has something to say wins, and its reason and message become status,
event and metric. Pure: no I/O, no clock, no randomness; the same inputs give the same decision anywhere.
"""

from __future__ import annotations

import msgspec

from tocsin_operator.scaling.busy import measure_busy, note_counters
from tocsin_operator.scaling.capacity import estimate_capacity, is_saturated, learn_capacity
from tocsin_operator.scaling.channels import leave_out, measure_channels, note_channels
from tocsin_operator.scaling.demand import (
    forget_offsets,
    is_backlog_falling,
    measure_arrival,
    measure_backlog,
    measure_peak,
    measure_surge,
    note_backlog,
    note_offsets,
)
from tocsin_operator.scaling.downstream import hold_while_nothing_finishes, respect_ceiling
from tocsin_operator.scaling.effect import await_effect, check_effect, learn_startup, measure_finished, note_finished
from tocsin_operator.scaling.given import (
    follow_owner,
    freeze_on_doubt,
    keep_suspended,
    return_into_bounds,
    wait_for_first_pod,
)
from tocsin_operator.scaling.inward import shrink, stay
from tocsin_operator.scaling.model import Config, Decision, LimitedBy, Observation, State
from tocsin_operator.scaling.modes import restrict_to_mode
from tocsin_operator.scaling.out import (
    give_lonely_a_pod,
    grow_before_too_late,
    grow_for_promise,
    grow_while_learning,
)
from tocsin_operator.scaling.partitions import classify, note_progress
from tocsin_operator.scaling.situation import Measured, Situation
from tocsin_operator.scaling.trust import Doubt, find_doubt, is_confirmed
from tocsin_operator.scaling.verdict import Rule, Verdict, find

RULES: tuple[Rule, ...] = (
    keep_suspended,
    follow_owner,
    freeze_on_doubt,
    return_into_bounds,
    wait_for_first_pod,
    hold_while_nothing_finishes,
    respect_ceiling,
    grow_while_learning,
    grow_before_too_late,
    grow_for_promise,
    give_lonely_a_pod,
    shrink,
    stay,
)


def decide(observation: Observation, state: State, config: Config) -> tuple[Decision, State]:
    """Return how many consumers there should be, with the whole why, and what to remember until the next time."""
    state = _note_replicas(observation, state)
    doubt = find_doubt(leave_out(observation, state.held_channels), state, config)
    if doubt and doubt.is_contradiction and is_confirmed(observation, state, config):
        state, doubt = forget_offsets(state), None
    situation = _distrust(observation, state, config, doubt) if doubt else _measure(observation, state, config)
    verdict = next(verdict for rule in RULES if (verdict := rule(situation)) is not None)
    return _explain(situation, verdict), situation.state


def _note_replicas(observation: Observation, state: State) -> State:
    """Start the cooldown when the number moved, whoever moved it: a write that failed then never counts as one."""
    replicas, now_seconds = observation.replicas.spec, observation.time_seconds
    state = learn_startup(observation, state)
    if state.replicas is None or replicas == state.replicas:
        return msgspec.structs.replace(state, replicas=replicas)
    is_up = replicas > state.replicas
    state = await_effect(state, before=state.replicas, after=replicas, now_seconds=now_seconds)
    return msgspec.structs.replace(
        state,
        replicas=replicas,
        last_scale_seconds=now_seconds,
        last_scale_up_seconds=now_seconds if is_up else state.last_scale_up_seconds,
        awaited_since_seconds=now_seconds if is_up else None,
    )


def _distrust(observation: Observation, state: State, config: Config, doubt: Doubt) -> Situation:
    now_seconds = observation.time_seconds
    frozen_since = now_seconds if state.frozen_since_seconds is None else state.frozen_since_seconds
    contradicted_since = state.contradicted_since_seconds
    if doubt.is_contradiction and contradicted_since is None:
        contradicted_since = now_seconds
    state = msgspec.structs.replace(
        state, frozen_since_seconds=frozen_since, contradicted_since_seconds=contradicted_since, run=None
    )
    capacity = estimate_capacity(state, config)
    return Situation(observation, state, config, capacity=capacity, doubt=doubt.message)


def _measure(seen: Observation, state: State, config: Config) -> Situation:
    state = msgspec.structs.replace(state, frozen_since_seconds=None, contradicted_since_seconds=None)
    state = note_counters(seen, state)
    busy = measure_busy(state)
    state = note_channels(seen, state, config, busy)
    observation = leave_out(seen, state.held_channels)
    state = note_offsets(observation, note_progress(observation, state, config), config)
    state = note_finished(observation, state)
    backlog = measure_backlog(observation, state)
    state = learn_capacity(observation, state, backlog, config)
    is_full = is_saturated(observation, state, backlog, config)
    state = check_effect(observation, state, config, is_saturated=is_full, busy=busy)
    capacity, arrival = estimate_capacity(state, config), measure_arrival(state, config)
    partitions = classify(backlog, state, config, arrival_per_second=arrival, capacity_per_second=capacity.per_second)
    state = note_backlog(state, backlog, sum(backlog.lags[index] for index in partitions.ordinary))
    measured = Measured(
        backlog=backlog,
        whole=measure_backlog(seen, state) if observation is not seen else backlog,
        channels=measure_channels(seen, state),
        partitions=partitions,
        busy=busy,
        finished_per_second=measure_finished(state),
        arrival_per_second=arrival,
        surge_per_second=measure_surge(state, config),
        peak_per_second=measure_peak(state),
        is_lag_falling=is_backlog_falling(state),
    )
    return Situation(observation, state, config, capacity=capacity, measured=measured)


def _explain(situation: Situation, found: Verdict) -> Decision:
    verdict = restrict_to_mode(situation, found)
    chosen = find(verdict.candidates, verdict.replicas) or (
        situation.now if verdict.replicas == situation.current else None
    )
    return Decision(
        replicas=verdict.replicas,
        reason=verdict.reason,
        message=verdict.message,
        limited_by=verdict.limited_by,
        inputs=situation.build_inputs(),
        candidates=verdict.candidates,
        drain_seconds=chosen.drain_seconds if chosen else None,
        is_trusted=not situation.doubt,
        advised_replicas=found.replicas if verdict.limited_by is LimitedBy.ADVISORY else None,
    )
