from __future__ import annotations

import msgspec
import pytest

from scaling_cases import Flow, build_observation, replay
from tocsin_operator.scaling.model import Config, Observation, Quality, Reason

CONFIG = Config(max_lag_seconds=60, interval_seconds=5, capacity_per_second=100)
IDLE = Flow(per_second=0, spec=8, partitions=3)


def watched() -> list[Observation]:
    """Ten minutes in which eight pods have nothing to do: the next trusted look scales in."""
    return Flow(per_second=0, spec=8).looks(0, 295, 5)


def next_look(**changes: object) -> Observation:
    return msgspec.structs.replace(Flow(per_second=0, spec=8).look(300), **changes)


def test_the_scene_of_these_tests_scales_in_on_a_good_answer() -> None:
    decision, _ = replay([*watched(), next_look()], CONFIG)
    assert decision.replicas == 1


BROKEN = {
    "incomplete": {"quality": Quality(is_complete=False, detail="broker 2 does not answer")},
    "stale": {"quality": Quality(age_seconds=31)},
    "empty": {"partitions": ()},
    "a hole": {"partitions": Flow(per_second=0, spec=8).look(0).partitions[1:]},
    "fewer partitions": {"partitions": Flow(per_second=0, spec=8).look(0).partitions[:-1]},
    "twice the same": {"partitions": Flow(per_second=0).look(0).partitions[:11] * 2},
    "negative": {"partitions": build_observation(0, [(-1, None)] * 12).partitions},
    "end went back": {"partitions": build_observation(0, [(10, 10)] * 12).partitions},
    "commits vanished": {"partitions": build_observation(0, [(1_000_000, None)] * 12).partitions},
    "clock went back": {"time_seconds": 1.0},
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN.keys())
def test_an_answer_that_cannot_be_true_holds_the_number(changes: dict[str, object]) -> None:
    decision, _ = replay([*watched(), next_look(**changes)], CONFIG)
    assert (decision.replicas, decision.reason, decision.is_trusted) == (8, Reason.METRICS_UNAVAILABLE, False)


def test_the_message_says_which_partition_is_missing() -> None:
    partitions = Flow(per_second=0, spec=8).look(0).partitions
    decision, _ = replay([*watched(), next_look(partitions=(*partitions[:4], *partitions[5:]))], CONFIG)
    assert "partition 4" in decision.message


def test_a_bad_answer_forgets_nothing_that_was_seen() -> None:
    broken = next_look(quality=Quality(is_complete=False))
    after = Flow(per_second=0, spec=8).look(305)
    decision, _ = replay([*watched(), broken, after], CONFIG)
    assert decision.replicas == 1


def test_a_contradiction_that_stays_becomes_the_truth_and_the_window_starts_again() -> None:
    fresh = Flow(per_second=0, spec=8, offset=10)
    decision, state = replay([*watched(), *fresh.looks(300, 330, 5)], CONFIG)
    assert decision.is_trusted
    assert decision.replicas == 8
    decision, _ = replay(fresh.looks(335, 640, 5), CONFIG, state)
    assert decision.replicas == 1


def test_offsets_reset_by_hand_are_believed_and_their_backlog_is_worked_off() -> None:
    steady = Flow(per_second=50, spec=1)
    reset = Flow(per_second=50, spec=1, lag=600_000)
    decision, _ = replay([*steady.looks(0, 100, 5), *reset.looks(105, 135, 5)], CONFIG)
    assert decision.replicas > 1


def test_nothing_changes_before_the_grace_time_is_over() -> None:
    config = msgspec.structs.replace(CONFIG, on_metrics_unavailable="ScaleToMax")
    broken = [build_observation(seconds, [], spec=3) for seconds in range(300, 356, 5)]
    decision, _ = replay([*Flow(per_second=0, spec=3).looks(0, 295, 5), *broken], config)
    assert decision.replicas == 3


@pytest.mark.parametrize(("policy", "expected"), [("Hold", 3), ("ScaleToMin", 2), ("ScaleToMax", 12)])
def test_after_the_grace_time_the_owner_s_choice_applies(policy: str, expected: int) -> None:
    config = msgspec.structs.replace(CONFIG, min_replicas=2, max_replicas=20, on_metrics_unavailable=policy)
    broken = [build_observation(seconds, [], spec=3) for seconds in range(300, 366, 5)]
    decision, _ = replay([*Flow(per_second=0, spec=3).looks(0, 295, 5), *broken], config)
    assert decision.replicas == expected


def test_scale_to_max_on_missing_metrics_never_lowers() -> None:
    config = msgspec.structs.replace(CONFIG, max_replicas=4, on_metrics_unavailable="ScaleToMax")
    broken = [build_observation(seconds, [], spec=9) for seconds in range(300, 400, 5)]
    decision, _ = replay(broken, config)
    assert decision.replicas == 9


def test_without_data_a_number_below_the_minimum_is_still_raised() -> None:
    decision, _ = replay([build_observation(0, [], spec=0)], CONFIG)
    assert decision.replicas == 1
