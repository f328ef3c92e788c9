"""What must hold of every decision, whatever the numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_cases import Flow, build_observation, replay
from scaling_plant import Plant
from tocsin_core.lag import PartitionOffsets
from tocsin_operator.scaling.candidates import build_bounds, list_counts
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import Config, Observation, Quality, Reason, State

INTERVAL = 5
# Time is what these tests do not look at, and the machines that run them are shared.
bounded = settings(deadline=None, max_examples=60)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    low = draw(st.integers(1, 20))
    return Config(
        min_replicas=low,
        max_replicas=draw(st.integers(low, 80)),
        max_lag_seconds=draw(st.sampled_from([5, 30, 60, 600])),
        interval_seconds=INTERVAL,
        cooldown_seconds=draw(st.sampled_from([0, 10, 120])),
        down_window_seconds=draw(st.sampled_from([10, 60, 300])),
        capacity_per_second=draw(st.one_of(st.none(), st.floats(0.5, 5_000))),
        on_metrics_unavailable=draw(st.sampled_from(["Hold", "ScaleToMax"])),
    )


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    spec = draw(st.integers(0, 40))
    return Flow(
        per_second=draw(st.floats(0, 20_000)),
        lag=draw(st.integers(0, 2_000_000)),
        partitions=draw(st.integers(1, 70)),
        spec=spec,
        ready=draw(st.integers(0, spec)),
        offset=10_000_000,
    )


def settle(flow: Flow, config: Config) -> tuple[State, Observation]:
    """Return what is known of a flow after it ran for a while, and the next look at it."""
    seconds = 8 * INTERVAL
    _, state = replay(flow.looks(0, seconds, INTERVAL), config)
    return state, flow.look(seconds + INTERVAL)


@bounded
@given(flow=flows(), config=configs())
def test_a_decision_is_never_above_partitions_or_maximum_and_never_below_the_minimum_they_allow(
    flow: Flow, config: Config
) -> None:
    state, look = settle(flow, config)
    decision, _ = decide(look, state, config)
    assert decision.replicas <= min(config.max_replicas, flow.partitions)
    assert decision.replicas >= min(config.min_replicas, config.max_replicas, flow.partitions)


@bounded
@given(flow=flows(), config=configs())
def test_a_suspended_pipeline_always_has_no_consumers(flow: Flow, config: Config) -> None:
    decision, _ = decide(flow.look(0), State(), msgspec.structs.replace(config, is_suspended=True))
    assert decision.replicas == 0


@bounded
@given(flow=flows(), config=configs())
def test_a_change_always_goes_to_a_count_that_changes_something_or_to_the_lower_end(flow: Flow, config: Config) -> None:
    state, look = settle(flow, config)
    decision, _ = decide(look, state, config)
    bounds = build_bounds(config, flow.partitions)
    if decision.is_action:
        assert decision.replicas in list_counts(flow.partitions, bounds)


@bounded
@given(partitions=st.integers(1, 300), low=st.integers(1, 50), high=st.integers(50, 400))
def test_a_count_is_listed_exactly_when_it_lowers_the_busiest_pod_or_is_the_lower_end(
    partitions: int, low: int, high: int
) -> None:
    bounds = build_bounds(Config(min_replicas=low, max_replicas=high), partitions)
    listed = set(list_counts(partitions, bounds))
    for count in range(bounds.lower, bounds.upper + 1):
        lowers = count == 1 or math.ceil(partitions / count) < math.ceil(partitions / (count - 1))
        assert (count in listed) == (lowers or count == bounds.lower)


@bounded
@given(flow=flows(), config=configs(), more=st.floats(1, 20_000))
def test_more_demand_never_means_fewer_pods(flow: Flow, config: Config, more: float) -> None:
    config = _keep_pods(config)
    less, much = (_decide_fresh(each, config) for each in (flow, replace(flow, per_second=flow.per_second + more)))
    assert much >= less


@bounded
@given(flow=flows(), config=configs(), more=st.integers(1, 2_000_000))
def test_more_backlog_never_means_fewer_pods(flow: Flow, config: Config, more: int) -> None:
    config = _keep_pods(config)
    less, much = (_decide_fresh(each, config) for each in (flow, replace(flow, lag=flow.lag + more)))
    assert much >= less


def _keep_pods(config: Config) -> Config:
    """Return a config under which nothing goes in: the same records are older at a lower rate, and age forbids that."""
    capacity = config.capacity_per_second or 100
    return msgspec.structs.replace(config, capacity_per_second=capacity, down_window_seconds=86_400)


def _decide_fresh(flow: Flow, config: Config) -> int:
    """Return the decision on a flow seen long enough to know its rate, and with nothing learned from it."""
    seconds = int(config.recent_seconds) + 2 * INTERVAL
    _, state = replay(flow.looks(0, seconds, INTERVAL), config)
    state = msgspec.structs.replace(state, windows=(), run=None)
    decision, _ = decide(flow.look(seconds + INTERVAL), state, config)
    return decision.replicas


BROKEN = st.sampled_from(
    ["incomplete", "stale", "empty", "hole", "negative", "ends back", "commits back", "clock back"]
)


@bounded
@given(flow=flows(), config=configs(), how=BROKEN, later=st.integers(1, 5_000))
def test_broken_data_never_lowers(flow: Flow, config: Config, how: str, later: int) -> None:
    flow = replace(flow, partitions=max(2, flow.partitions), lag=0)
    _, state = replay(flow.looks(0, 2 * config.down_window_seconds, INTERVAL), config)
    look = _break(flow.look(2 * config.down_window_seconds + later), how)
    decision, _ = decide(look, state, config)
    assert decision.reason is Reason.METRICS_UNAVAILABLE
    assert decision.replicas >= flow.spec


def _break(look: Observation, how: str) -> Observation:
    changes: dict[str, dict[str, object]] = {
        "incomplete": {"quality": Quality(is_complete=False)},
        "stale": {"quality": Quality(age_seconds=1_000)},
        "empty": {"partitions": ()},
        "hole": {"partitions": look.partitions[1:]},
        "negative": {"partitions": (PartitionOffsets(0, 0, -5, -7), *look.partitions[1:])},
        "ends back": {"partitions": (PartitionOffsets(0, 0, 5, 5), *look.partitions[1:])},
        "commits back": {"partitions": (replace(look.partitions[0], committed=None), *look.partitions[1:])},
        "clock back": {"time_seconds": 5.0},
    }
    return msgspec.structs.replace(look, **changes[how])


@bounded
@given(
    rate=st.integers(1, 500),
    lag_seconds=st.integers(0, 400),
    partitions=st.integers(1, 40),
    spec=st.integers(1, 12),
    capacity=st.integers(5, 500),
    factor=st.integers(2, 1_000),
)
def test_the_same_load_in_other_units_gives_the_same_number(  # noqa: PLR0917 - one argument a dimension
    rate: int, lag_seconds: int, partitions: int, spec: int, capacity: int, factor: int
) -> None:
    """Ten times the messages on pods ten times as fast need the same pods."""

    def decide_at(scale: int) -> int:
        flow = Flow(
            per_second=partitions * rate * scale,
            lag=partitions * rate * lag_seconds * scale,
            partitions=partitions,
            spec=spec,
            offset=10_000_000_000,
        )
        return _decide_fresh(flow, Config(capacity_per_second=capacity * scale))

    assert decide_at(factor) == decide_at(2 * factor)


@settings(max_examples=15, deadline=None)
@given(
    rate=st.floats(20, 900),
    noise=st.floats(0, 0.25),
    seed=st.integers(0, 2**16),
    partitions=st.sampled_from([6, 12, 24]),
    cooldown=st.sampled_from([20, 60, 120]),
)
def test_steady_noise_causes_at_most_one_action_in_a_cooldown(
    rate: float, noise: float, seed: int, partitions: int, cooldown: int
) -> None:
    config = Config(max_replicas=24, capacity_per_second=100, cooldown_seconds=cooldown, down_window_seconds=60)
    plant = Plant(config, lambda _: rate, partitions=partitions, noise=noise, seed=seed)
    plant.run(600)
    settled = [index for index, decision in enumerate(plant.decisions) if decision.is_action and index > 120 / INTERVAL]
    assert all(later - earlier >= cooldown / INTERVAL for earlier, later in pairwise(settled))


@bounded
@given(flow=flows(), config=configs(), which=st.integers(0, 69))
def test_a_partition_that_gets_stuck_never_raises_the_number(flow: Flow, config: Config, which: int) -> None:
    flow = replace(flow, partitions=max(3, flow.partitions), lag=0)
    looks = flow.looks(0, 150, INTERVAL)
    stuck = which % flow.partitions
    healthy, _ = replay(looks, config)
    troubled, _ = replay([_stop(look, stuck) for look in looks], config)
    assert troubled.replicas <= healthy.replicas


def _stop(look: Observation, which: int) -> Observation:
    """Return the look with one partition's commit where it was at the beginning."""
    stopped = tuple(
        replace(offsets, committed=10_000_000) if offsets.partition == which else offsets for offsets in look.partitions
    )
    return msgspec.structs.replace(look, partitions=stopped)


@bounded
@given(flow=flows(), config=configs())
def test_a_channel_that_is_held_back_never_raises_the_number(flow: Flow, config: Config) -> None:
    config = msgspec.structs.replace(config, channels=("hook", "mail"))
    flow = replace(flow, lag=0, per_second=flow.per_second + flow.partitions)
    looks = flow.looks(0, 150, INTERVAL)
    healthy, _ = replay(looks, config)
    troubled, _ = replay([_hold(look) for look in looks], config)
    assert troubled.inputs.held_channels == {"hook"}
    assert troubled.replicas <= healthy.replicas


@bounded
@given(flow=flows(), config=configs(), lead=st.integers(0, 1_000))
def test_where_no_channel_is_held_back_it_is_the_slowest_that_decides(flow: Flow, config: Config, lead: int) -> None:
    several = msgspec.structs.replace(config, channels=("hook", "mail"))
    looks = flow.looks(0, 50, INTERVAL)
    ahead = [_lead(look, {"hook": 0, "mail": lead, "": lead}) for look in looks]
    decision, _ = replay(ahead, several)
    if not decision.inputs.held_channels:
        alone, _ = replay(looks, config)
        assert (decision.replicas, decision.reason) == (alone.replicas, alone.reason)


def _hold(look: Observation) -> Observation:
    """Return the look with one of two channels where it was at the beginning."""
    held = tuple(
        replace(each, committed=10_000_000, leads={"hook": 0, "mail": each.position - 10_000_000})
        for each in look.partitions
    )
    return msgspec.structs.replace(look, partitions=held)


def _lead(look: Observation, leads: dict[str, int]) -> Observation:
    return msgspec.structs.replace(look, partitions=tuple(replace(each, leads=leads) for each in look.partitions))


@bounded
@given(flow=flows(), config=configs(), is_held=st.booleans())
def test_a_decision_replays_from_its_recorded_inputs(flow: Flow, config: Config, is_held: bool) -> None:
    state, look = settle(flow, config)
    if is_held:
        config = msgspec.structs.replace(config, channels=("hook", "mail"))
        _, state = replay([_hold(each) for each in flow.looks(0, 150, INTERVAL)], config)
        look = _hold(flow.look(155))
    again = decide(
        msgspec.json.decode(msgspec.json.encode(look), type=Observation),
        msgspec.json.decode(msgspec.json.encode(state), type=State),
        msgspec.json.decode(msgspec.json.encode(config), type=Config),
    )
    assert again == decide(look, state, config)


@bounded
@given(
    offsets=st.lists(st.tuples(st.integers(-5, 50), st.one_of(st.none(), st.integers(-5, 60))), max_size=8),
    spec=st.integers(0, 9),
    ready=st.integers(0, 9),
    config=configs(),
)
def test_no_numbers_make_it_fail(offsets: list[tuple[int, int | None]], spec: int, ready: int, config: Config) -> None:
    look = build_observation(0, offsets, spec=spec, ready=ready)
    decision, state = decide(look, State(), config)
    decide(msgspec.structs.replace(look, time_seconds=look.time_seconds + 5), state, config)
    assert decision.message
