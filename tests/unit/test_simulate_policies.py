"""The published formulas, on numbers that can be checked by hand."""

from __future__ import annotations

import pytest

from tocsin_cli.simulate.plant import Look
from tocsin_cli.simulate.policies.base import Policy, Terms
from tocsin_cli.simulate.policies.choice import POLICIES, PolicyError, build_policy
from tocsin_cli.simulate.policies.flink import Flink, Options
from tocsin_cli.simulate.policies.keda import Keda
from tocsin_cli.simulate.policies.numaflow import Numaflow
from tocsin_cli.simulate.run import simulate
from tocsin_cli.simulate.scenario import Scenario

TERMS = Terms(max_replicas=100)


def look(second: int, lag: int, replicas: int, *, partitions: int = 60, done: int = 0, busy: float = 0.0) -> Look:
    lags = [lag // partitions + (index < lag % partitions) for index in range(partitions)]
    finished = [done // partitions] * partitions
    return Look(
        second=second,
        is_answered=True,
        ends=tuple(each + behind for each, behind in zip(finished, lags, strict=True)),
        committed=tuple(finished),
        missing=frozenset(),
        replicas=replicas,
        ready=replicas,
        pods=tuple((f"pod-{number}", 0.0, busy) for number in range(replicas)),
    )


def test_keda_divides_the_lag_by_its_threshold() -> None:
    assert Keda(TERMS, threshold=500).decide(look(0, 3_100, 6)) == 6  # within a tenth of 7 x 500
    assert Keda(TERMS, threshold=500).decide(look(0, 3_400, 6)) == 7


def test_an_hpa_at_most_doubles_or_adds_four_at_a_time() -> None:
    assert Keda(TERMS, threshold=100).decide(look(0, 6_000, 1)) == 5
    assert Keda(TERMS, threshold=100).decide(look(0, 6_000, 10)) == 20


def test_an_hpa_goes_down_to_the_highest_wish_of_five_minutes() -> None:
    policy = Keda(TERMS, threshold=100)
    wishes = [policy.decide(look(second, 2_000 if second < 15 else 0, 20)) for second in range(0, 330, 15)]
    assert wishes[:20] == [20] * 20
    assert wishes[-1] == 1


def test_keda_stalls_just_below_the_partitions() -> None:
    # kedacore/keda#4791: the cap and the tolerance collide
    assert Keda(TERMS, threshold=100).decide(look(0, 1_000_000, 22, partitions=24)) == 22
    assert Keda(TERMS, threshold=100, tolerance=0.0).decide(look(0, 1_000_000, 22, partitions=24)) == 24


def test_keda_buys_one_pod_more_than_there_are_partitions() -> None:
    # kedacore/keda#4483: the cap divides whole numbers
    assert Keda(TERMS, threshold=100).decide(look(0, 550, 5, partitions=5)) == 5
    assert Keda(TERMS, threshold=100).decide(look(0, 599, 4, partitions=5)) == 6


def test_keda_rounds_up_to_a_divisor_where_it_is_asked_to() -> None:
    assert Keda(TERMS, threshold=100, is_even=True).decide(look(0, 1_300, 10, partitions=60)) == 15


def test_keda_goes_to_zero_after_its_cooldown_and_wakes_at_its_poll() -> None:
    policy = Keda(Terms(min_replicas=0), threshold=100)
    assert policy.decide(look(0, 50, 1)) == 1
    assert policy.decide(look(285, 0, 1)) == 1
    assert policy.decide(look(300, 0, 1)) == 0
    assert policy.decide(look(315, 5, 0)) == 0
    assert policy.decide(look(330, 5, 0)) == 1


def test_flink_sizes_on_true_processing_rate() -> None:
    policy = Flink(TERMS, Options(window=60, stabilisation=60, catch_up=1_800, restart=0))
    replicas = 4
    for second in range(0, 121, 30):
        replicas = policy.decide(look(second, 0, 4, done=380 * second, busy=second * 0.95))
    assert replicas == 4  # 380/s of 400/s is within its dead band
    policy = Flink(TERMS, Options(window=60, stabilisation=60, catch_up=1_800, restart=0))
    wanted = [policy.decide(look(second, 200 * second, 4, done=400 * second, busy=second)) for second in (0, 30, 60)]
    assert wanted[-1] == 10  # 600/s at 70 % and 12,000 in half an hour are 8.6 pods; ten divide the partitions


def test_flink_goes_down_only_after_its_interval() -> None:
    policy = Flink(TERMS, Options(window=60, stabilisation=60, restart=0, down_interval=600))
    wanted = [policy.decide(look(t, 0, 20, done=100 * t, busy=t * 0.05)) for t in range(0, 1_200, 30)]
    first = next(index for index, count in enumerate(wanted) if count < 20)
    assert first * 30 >= 600


def test_numaflow_holds_pending_over_rate_against_its_target() -> None:
    policy = Numaflow(TERMS)
    policy.decide(look(0, 0, 4))
    assert policy.decide(look(120, 24_000, 4, done=48_000)) == 6  # 60 s of work for a target of 20: 12, by two


def test_numaflow_shrinks_a_vertex_that_keeps_up() -> None:
    policy = Numaflow(TERMS)
    policy.decide(look(0, 0, 4))
    assert policy.decide(look(120, 400, 4, done=48_000)) == 2


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_survives_a_day_of_little_and_of_much(name: str) -> None:
    scenario = Scenario("all", [0.0] * 100 + [900.0] * 300 + [0.0] * 200, partitions=12, warmup_seconds=0)
    run = simulate(scenario, name, Terms(max_replicas=20), seed=1)
    assert min(run.replicas) >= 1
    assert max(run.replicas) <= 20


def test_a_policy_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(PolicyError, match=r"'kede' is none of tocsin, "):
        build_policy("kede", TERMS)


def test_policies_are_policies() -> None:
    policies: list[Policy] = [build_policy(name, TERMS) for name in POLICIES]
    assert all(policy.interval_seconds > 0 for policy in policies)
