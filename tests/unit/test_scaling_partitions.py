"""Rule 3: a stuck partition buys nothing, a hot one buys a pod of its own, and both are named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from scaling_cases import build_observation, replay
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import Config, Decision, LimitedBy, Observation, Reason, State

CONFIG = Config(max_lag_seconds=30, interval_seconds=5, capacity_per_second=100, max_replicas=60)
OFFSET = 1_000_000


def look(
    seconds: float, rates: Sequence[float], lags: Sequence[float] = (), *, spec: int = 4, stopped: Sequence[int] = ()
) -> Observation:
    """Return a look at partitions that receive `rates` and are `lags` behind; the stopped ones' commits never move."""
    behind = [*lags, *([0.0] * len(rates))]
    offsets = [
        (OFFSET + int(rate * seconds), OFFSET if index in stopped else OFFSET + int(rate * seconds - lag))
        for index, (rate, lag) in enumerate(zip(rates, behind, strict=False))
    ]
    return build_observation(seconds, offsets, spec=spec)


def watch(seconds: int, rates: Sequence[float], **kwargs: object) -> tuple[Decision, State]:
    return replay([look(second, rates, **kwargs) for second in range(0, seconds, 5)], CONFIG)  # type: ignore[arg-type]


def test_a_partition_that_stands_still_while_others_move_is_stuck() -> None:
    decision, _ = watch(90, [10.0] * 12, stopped=[3])
    assert decision.inputs.stuck_partitions == (3,)
    assert "partition 3 stands still" in decision.message


def test_a_stuck_partition_buys_nothing() -> None:
    decision, _ = watch(2_000, [10.0] * 12, stopped=[3])
    assert decision.inputs.total_lag is not None
    assert decision.inputs.total_lag > 19_000
    assert decision.replicas <= 4


def test_a_stuck_partition_does_not_keep_the_others_pods() -> None:
    decision, _ = watch(400, [2.0] * 12, stopped=[3])
    assert (decision.replicas, decision.reason) == (1, Reason.FITS_IN_FEWER)


def test_one_of_two_partitions_can_be_stuck() -> None:
    decision, _ = watch(90, [10.0] * 2, stopped=[1], spec=1)
    assert decision.inputs.stuck_partitions == (1,)


def test_a_partition_where_a_record_ends_now_and_then_stays_stuck_and_buys_nothing() -> None:
    def look_at(second: int) -> Observation:
        crawled = OFFSET + second // 110  # every request waits for its time-out of 110 s
        moved = [(OFFSET + 10 * second, crawled if index == 3 else OFFSET + 10 * second) for index in range(12)]
        return build_observation(second, moved, spec=4)

    looks = [look_at(second) for second in range(0, 1_000, 5)]
    state, found = State(), []
    for each in looks:
        decision, state = decide(each, state, CONFIG)
        found.append((decision.inputs.stuck_partitions, decision.replicas))
    assert {stuck for stuck, _ in found[35:]} == {(3,)}
    assert max(replicas for _, replicas in found) == 4


def test_a_pause_of_all_partitions_is_no_stuck_partition() -> None:
    decision, _ = watch(400, [10.0] * 12, stopped=range(12))
    assert decision.inputs.stuck_partitions == ()


def test_most_partitions_standing_still_are_a_slow_group_and_not_stuck_partitions() -> None:
    decision, _ = watch(400, [10.0] * 12, stopped=range(8))
    assert decision.inputs.stuck_partitions == ()


def test_a_partition_is_given_a_minute_before_it_is_called_stuck() -> None:
    decision, _ = watch(60, [10.0] * 12, stopped=[3])
    assert decision.inputs.stuck_partitions == ()


def test_a_partition_that_moves_twice_again_is_not_stuck_any_more() -> None:
    _, state = watch(300, [10.0] * 12, stopped=[3])
    once, state = decide(look(300, [10.0] * 12, [0, 0, 0, 2_500]), state, CONFIG)
    twice, _ = decide(look(305, [10.0] * 12, [0, 0, 0, 2_000]), state, CONFIG)
    assert (once.inputs.stuck_partitions, twice.inputs.stuck_partitions) == ((3,), ())


def test_a_hot_partition_gets_a_pod_that_it_hardly_shares_and_no_more() -> None:
    rates = [150.0, *([4.0] * 59)]
    decision, _ = watch(200, rates, lags=[7_500], spec=6)
    assert decision.inputs.hot_partitions == (0,)
    assert (decision.replicas, decision.reason, decision.limited_by) == (
        20,
        Reason.PARTITION_HOT,
        LimitedBy.HOT_PARTITION,
    )
    again, _ = watch(200, rates, lags=[7_500], spec=20)
    assert (again.replicas, again.reason) == (20, Reason.PARTITION_HOT)
    assert "more partitions" in again.message


def test_a_hot_partition_keeps_its_pod_although_all_others_would_fit_in_fewer() -> None:
    decision, _ = watch(600, [90.0, *([1.0] * 59)], spec=20)
    assert decision.inputs.hot_partitions == (0,)
    assert decision.replicas == 6
    assert {each.replicas: each.refusal for each in decision.candidates}[5].startswith("partition 0 needs a pod")


def test_a_topic_whose_every_partition_is_too_much_has_no_hot_partition_but_too_few() -> None:
    decision, _ = watch(200, [150.0] * 12, lags=[7_500] * 12, spec=6)
    assert decision.inputs.hot_partitions == ()
    assert (decision.replicas, decision.limited_by) == (12, LimitedBy.PARTITIONS)


def test_one_partition_s_old_backlog_is_its_own_trouble_and_does_not_buy_every_pod() -> None:
    decision, _ = watch(200, [4.0] * 60, lags=[40_000], spec=6)
    assert decision.inputs.behind_partitions == (0,)
    assert decision.replicas == 20


def test_uneven_partitions_count_at_the_fullest_pod() -> None:
    """Evenly spread, four pods carry 320/s; with one partition of 70/s the fullest of four would be above 100/s."""
    even, _ = watch(200, [320 / 12] * 12, lags=[14 * 27] * 12, spec=2)
    uneven, _ = watch(200, [70.0, *([250 / 11] * 11)], lags=[10 * 70, *([10 * 23] * 11)], spec=2)
    assert even.replicas == 4
    assert {each.replicas: each.refusal for each in uneven.candidates}[4].startswith("busiest pod at 115%")
    assert uneven.replicas > 4


@pytest.mark.parametrize("stopped", [0, 7, 11])
def test_what_is_stuck_survives_in_the_message_whatever_else_is_decided(stopped: int) -> None:
    decision, _ = watch(300, [60.0] * 12, lags=[1_000] * 12, stopped=[stopped], spec=2)
    assert f"partition {stopped}" in decision.message
