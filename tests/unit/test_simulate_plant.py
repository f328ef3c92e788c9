"""The simulated world: assignment moves little, pods start, work and pause as they say, and trouble comes as told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tocsin_cli.simulate.members import Pod, assign
from tocsin_cli.simulate.plant import Plant
from tocsin_cli.simulate.scenario import Pods, Scenario, Span


def steady(per_second: float = 100, seconds: int = 200, **changes: object) -> Scenario:
    pods = Pods(startup_seconds=10)
    return replace(Scenario("steady", [per_second] * seconds, partitions=12, pods=pods), **changes)  # type: ignore[arg-type]


def run(scenario: Scenario, seconds: int, *, pods: int = 1, seed: int = 1) -> Plant:
    plant = Plant(replace(scenario, first_replicas=pods), seed=seed)
    for _ in range(seconds):
        plant.step()
    return plant


def members(*owned: list[int]) -> list[Pod]:
    return [Pod(f"pod-{number}", 0, owned=list(each)) for number, each in enumerate(owned)]


def test_partitions_are_shared_evenly() -> None:
    pods = members([], [], [], [], [])
    assign(pods, 12)
    assert sorted(len(pod.owned) for pod in pods) == [2, 2, 2, 3, 3]
    assert sorted(each for pod in pods for each in pod.owned) == list(range(12))


def test_a_pod_that_joins_takes_only_its_share() -> None:
    assert len(assign(members([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], []), 12)) == 3


def test_a_pod_that_leaves_moves_only_what_it_had() -> None:
    assert assign(members([0, 1, 2, 3], [4, 5, 6, 7]), 12) == {8, 9, 10, 11}


def test_pods_that_keep_up_leave_no_lag_and_are_busy_for_their_share() -> None:
    plant = run(steady(50), 100)
    ((_, processed, busy),) = plant.look().pods
    assert plant.age == 0
    assert processed == pytest.approx(5_000)
    assert busy == pytest.approx(50)


def test_too_few_pods_let_the_oldest_record_age() -> None:
    plant = run(steady(200), 100)
    assert plant.age == pytest.approx(50, abs=2)
    assert plant.look().total_lag == pytest.approx(10_000, rel=0.06)


def test_commits_trail_what_is_finished() -> None:
    assert 0 < run(steady(60), 100).look().total_lag <= 60 * 5


def test_new_pods_work_after_their_start_and_partitions_that_move_stand_still() -> None:
    plant = run(steady(300), 100)
    plant.scale_to(6)
    assert (plant.ready, plant.replicas) == (1, 6)
    for _ in range(13):
        plant.step()
    assert plant.ready == 6
    assert 10 <= plant.moves <= 20  # they join one after the other


def test_a_frozen_partition_is_nobody_s_fault_while_it_is_frozen() -> None:
    scenario = steady(50, frozen=Span(20, 80))
    assert run(scenario, 79).age == 0
    assert run(scenario, 79).look().lags[0] > 200
    assert run(scenario, 81).age > 40


def test_a_ceiling_of_the_downstream_holds_whatever_the_pods() -> None:
    scenario = steady(800, ceiling_per_second=300, ceiling=Span(0, 200))
    two, many = run(scenario, 100, pods=4), run(scenario, 100, pods=12)
    assert two.look().total_lag == pytest.approx(many.look().total_lag, rel=0.01)
    assert all(busy == pytest.approx(100, abs=4) for _, _, busy in many.look().pods)


def test_a_partial_answer_lacks_partitions_and_reads_as_less_lag() -> None:
    look = run(steady(200, partial=Span(90, 200)), 100).look()
    assert look.missing == {0, 2, 4, 6, 8, 10}
    assert look.total_lag < 6_000


def test_an_outage_is_no_answer() -> None:
    assert not run(steady(outage=Span(90, 200)), 100).look().is_answered


def test_a_killed_pod_comes_again() -> None:
    plant = run(steady(50, kill_every_seconds=50), 100, pods=3)
    assert plant.replicas == 3
    assert plant.moves > 0


def test_a_rolling_update_moves_every_partition_at_least_once() -> None:
    assert run(steady(50, deploys=(20,)), 120, pods=3).moves >= 12


def test_partitions_that_are_added_get_their_records() -> None:
    plant = run(steady(120, grown_partitions=24, grown_at=50), 100)
    assert plant.look().partitions == 24
    assert plant.look().ends[23] > 200


def test_the_same_seed_is_the_same_world() -> None:
    scenario = steady(100, noise=1.0)
    assert run(scenario, 150).look() == run(scenario, 150).look()
    assert run(scenario, 150).look() != run(scenario, 150, seed=2).look()
