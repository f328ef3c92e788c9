"""What each mode leaves of a decision, and pipelines that rest."""

from __future__ import annotations

import msgspec
import pytest

from scaling_cases import Flow, build_observation, replay
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import Config, Decision, LimitedBy, Quality, Reason, State

CONFIG = Config(max_lag_seconds=60, interval_seconds=5, capacity_per_second=100)
ADVISORY = msgspec.structs.replace(CONFIG, mode="Advisory", manual_replicas=2)
UP_ONLY = msgspec.structs.replace(CONFIG, mode="ScaleUpOnly")
RESTING = msgspec.structs.replace(CONFIG, min_replicas=0)


def watch(flow: Flow, config: Config, seconds: int = 400) -> Decision:
    return replay(flow.looks(0, seconds, 5), config)[0]


def test_an_advice_is_what_auto_would_do_and_the_number_is_the_owner_s() -> None:
    flow = Flow(per_second=500, lag=12_000, spec=2)
    advised, done = watch(flow, ADVISORY), watch(flow, CONFIG)
    assert done.replicas > 4
    assert (advised.replicas, advised.limited_by) == (2, LimitedBy.ADVISORY)
    assert advised.advised_replicas == done.replicas
    assert advised.reason is done.reason
    assert f"Auto would run {done.replicas} pods" in advised.message


def test_a_suspended_pipeline_in_advisory_is_suspended() -> None:
    decision = watch(Flow(), msgspec.structs.replace(ADVISORY, is_suspended=True))
    assert (decision.replicas, decision.reason, decision.advised_replicas) == (0, Reason.SUSPENDED, None)


def test_scale_up_only_goes_out() -> None:
    assert watch(Flow(per_second=500, lag=2_400), UP_ONLY).replicas == 6


def test_scale_up_only_never_takes_pods_away_and_says_who_could() -> None:
    decision = watch(Flow(per_second=5, spec=8), UP_ONLY)
    assert (decision.replicas, decision.limited_by) == (8, LimitedBy.SCALE_UP_ONLY)
    assert decision.message.startswith("mode is ScaleUpOnly: 8 pods stay; 1 pod would carry")


def test_scale_up_only_keeps_to_the_maximum() -> None:
    assert watch(Flow(per_second=5, spec=20), UP_ONLY, seconds=5).replicas == 12


def test_a_pipeline_that_may_rest_rests_once_nothing_came_for_the_whole_window() -> None:
    flow = Flow(per_second=0, spec=1)
    assert watch(flow, RESTING, seconds=290).replicas == 1
    decision = watch(flow, RESTING, seconds=310)
    assert (decision.replicas, decision.reason) == (0, Reason.IDLE)


def test_a_pipeline_that_may_not_rest_keeps_one_consumer() -> None:
    assert watch(Flow(per_second=0, spec=1), CONFIG).replicas == 1


def test_little_traffic_is_not_rest() -> None:
    assert watch(Flow(per_second=0.1, spec=1), RESTING).replicas == 1


def test_a_resting_pipeline_stays_at_rest() -> None:
    decision = watch(Flow(per_second=0, spec=0), RESTING)
    assert (decision.replicas, decision.reason) == (0, Reason.IDLE)


def test_the_first_notification_wakes_it() -> None:
    _, state = replay(Flow(per_second=0, spec=0).looks(0, 400, 5), RESTING)
    offsets = [(1_000_000, 1_000_000)] * 11 + [(1_000_001, 1_000_000)]
    decision, _ = decide(build_observation(405, offsets, spec=0), state, RESTING)
    assert decision.replicas == 1


def test_a_burst_wakes_as_many_as_it_needs() -> None:
    _, state = replay(Flow(per_second=0, spec=0).looks(0, 400, 5), RESTING)
    decision, _ = decide(build_observation(405, [(1_005_000, 1_000_000)] * 12, spec=0), state, RESTING)
    assert decision.replicas > 4


def test_a_notification_that_came_while_kafka_was_silent_wakes_it_however_old_it_is() -> None:
    """One record on a log that does not move looks like a transaction's marker, unless it was not there before."""
    _, state = replay(Flow(per_second=0, spec=0).looks(0, 400, 5), RESTING)
    silence = Quality(is_complete=False, detail="no answer")
    for second in range(405, 600, 5):
        look = msgspec.structs.replace(build_observation(second, [], spec=0), quality=silence)
        decision, state = decide(look, state, RESTING)
        assert decision.replicas == 0
    offsets = [(1_000_000, 1_000_000)] * 11 + [(1_000_001, 1_000_000)]
    for second in range(600, 700, 5):
        decision, state = decide(build_observation(second, offsets, spec=0), state, RESTING)
        assert decision.replicas == 1


def test_a_marker_that_was_settled_before_the_rest_does_not_wake_it() -> None:
    marked = [(1_000_001, 1_000_000)] * 12
    looks = [build_observation(second, marked, spec=1) for second in range(0, 400, 5)]
    decision, state = replay(looks, RESTING)
    assert decision.replicas == 0
    for second in range(400, 600, 5):
        decision, state = decide(build_observation(second, marked, spec=0), state, RESTING)
        assert decision.replicas == 0


@pytest.mark.parametrize("answer", ["Hold", "ScaleToMin"])
def test_missing_data_puts_nobody_to_rest(answer: str) -> None:
    config = msgspec.convert({**msgspec.to_builtins(RESTING), "on_metrics_unavailable": answer}, Config)
    state = State()
    for second in range(0, 600, 5):
        look = msgspec.structs.replace(build_observation(second, [], spec=2), quality=Quality(is_complete=False))
        decision, state = decide(look, state, config)
        assert decision.replicas >= 1
