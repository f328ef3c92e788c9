"""The demo's profile against a plant: out to what is needed, in again, no flapping, the promise kept."""

from __future__ import annotations

import pytest

from scaling_plant import Plant
from tocsin_operator.scaling.model import Config

DEMO = Config(max_lag_seconds=5, interval_seconds=1, cooldown_seconds=5, down_window_seconds=10)
STEP_AT, STEP_END, END = 12, 42, 120


def demo(second: int) -> float:
    return 300 if STEP_AT <= second < STEP_END else 60


@pytest.fixture(params=[0.0, 0.2], ids=["smooth", "noisy"], name="plant")
def run_demo(request: pytest.FixtureRequest) -> Plant:
    plant = Plant(DEMO, demo, noise=request.param, seed=7)
    plant.run(END)
    return plant


def test_the_demo_goes_out_to_what_its_peak_needs(plant: Plant) -> None:
    assert 4 <= max(plant.counts) <= 6


def test_the_demo_goes_out_within_seconds_of_its_peak_although_no_capacity_was_known(plant: Plant) -> None:
    assert next(second for second, count in enumerate(plant.counts) if count > 1) <= STEP_AT + 7


def test_the_demo_comes_in_again(plant: Plant) -> None:
    assert plant.counts[-1] == 1


def test_the_demo_keeps_its_promise_but_for_the_start_of_pods(plant: Plant) -> None:
    broken = [second for second, age in enumerate(plant.ages) if age > DEMO.max_lag_seconds]
    assert len(broken) <= 5
    assert all(STEP_AT < second <= STEP_AT + 14 for second in broken)


def test_the_demo_never_turns_back(plant: Plant) -> None:
    steps = [after - before for before, after in zip(plant.counts, plant.counts[1:], strict=False) if after != before]
    assert len(steps) <= 5
    assert steps == sorted(steps, reverse=True, key=lambda step: step > 0)


def test_a_second_peak_is_met_at_once_because_the_capacity_is_known() -> None:
    plant = Plant(DEMO, lambda second: demo(second % END))
    plant.run(END + 40)
    second_peak = plant.counts[END + STEP_AT :]
    assert next(second for second, count in enumerate(second_peak) if count > 1) <= 3


def test_pods_with_a_known_capacity_keep_a_minute_s_promise_through_a_fourfold_step() -> None:
    config = Config(capacity_per_second=100)
    plant = Plant(config, lambda second: 300 if 300 <= second < 1_500 else 65, startup_seconds=30, rebalance_seconds=3)
    plant.run(3_000)
    assert max(plant.ages) <= config.max_lag_seconds
    assert plant.counts[-1] == 1
    assert len(plant.actions) <= 5


def test_a_load_just_above_capacity_leaves_slow_pods_the_time_to_come() -> None:
    """Its lag grows so slowly that nothing looks urgent until what is left is shorter than pods take to work."""
    config = Config(capacity_per_second=100)

    def climb(second: int) -> float:
        return 60 + min(55.0, max(0, second - 600) * 55 / 120)

    plant = Plant(config, climb, noise=0.05, startup_seconds=60, rebalance_seconds=10, commit_seconds=5)
    plant.run(2_400)
    assert max(plant.ages) <= config.max_lag_seconds
    assert len(plant.actions) == 1


def test_a_load_just_below_capacity_moves_nothing() -> None:
    plant = Plant(Config(capacity_per_second=100), lambda _: 95, noise=0.2, commit_seconds=5)
    plant.run(2_400)
    assert plant.actions == []


def test_a_day_of_slowly_moving_load_causes_few_actions() -> None:
    config = Config(capacity_per_second=100)

    def wave(second: int) -> float:
        half = 3_600
        return 100 + 600 * (second % half if (second // half) % 2 == 0 else half - second % half) / half

    plant = Plant(config, wave, noise=0.1, startup_seconds=20)
    plant.run(7_200)
    assert max(plant.ages) <= config.max_lag_seconds
    assert len(plant.actions) <= 14


def test_a_backlog_from_before_the_pipeline_is_worked_off_without_a_known_capacity() -> None:
    plant = Plant(Config(), lambda second: 40_000 if second == 1 else 20)
    plant.run(900)
    assert plant.decisions[-1].inputs.total_lag is not None
    assert plant.decisions[-1].inputs.total_lag < 100
    assert max(plant.counts) > 1
