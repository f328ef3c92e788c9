"""The pure parts of the real runs: what is dealt to whom, what a run came to, and what KEDA is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cluster.arms import KEDA, TOCSIN, Arm, build_arm, build_users
from bench.cluster.judge import Sample, count_moves, fill_seconds, find_silence, judge
from bench.cluster.keda import IMAGE, adapt_objects, build_scaled_object
from bench.cluster.traces import (
    HANGING,
    LAG_THRESHOLD,
    PARTITIONS,
    PER_SECOND,
    TERMS,
    TRACES,
    Dealer,
    build_recipient,
    list_recipients,
    share_out,
)
from bench.cluster.watch import read_owners
from bench.compare import FLOOR
from bench.ledger import Ledger
from tocsin_cli.simulate.scenario import Scenario


def sample(at: float, *, age: float = 0.0, replicas: int = 1, owners: Mapping[int, str] | None = None) -> Sample:
    return Sample(at, age, 0, replicas, replicas, owners or {})


def deal(name: str, seconds: range) -> Counter[int]:
    dealer = Dealer(TRACES[name], seed=1)
    return Counter(
        arrival.partition for second in seconds for part in range(10) for arrival in dealer.deal(second, 0.1)
    )


@pytest.mark.parametrize("name", TRACES)
def test_everything_that_arrives_is_dealt(name: str) -> None:
    seconds = range(TRACES[name].seconds)
    assert deal(name, seconds).total() == pytest.approx(sum(TRACES[name].arrivals), abs=PARTITIONS)


def test_a_hot_partition_gets_more_than_a_pod_can_do_and_the_others_do_not() -> None:
    counts = deal("hot", range(100, 200))
    assert counts[0] > 100 * PER_SECOND
    assert max(counts[partition] for partition in range(1, PARTITIONS)) < 100 * PER_SECOND / 4


@pytest.mark.parametrize("second", [0, 100])
def test_shares_are_the_whole(second: int) -> None:
    assert sum(share_out(TRACES["hot"], second)) == pytest.approx(1)


def test_only_the_stuck_partition_hangs() -> None:
    dealer = Dealer(TRACES["stuck"], seed=1)
    found = [arrival for second in range(50, 90) for arrival in dealer.deal(second, 1.0)]
    hanging = [arrival for arrival in found if arrival.recipient.endswith(HANGING)]
    assert hanging
    assert {arrival.partition for arrival in hanging} == {0}
    assert {arrival.recipient for arrival in found if arrival.partition == 0} > {build_recipient(0, HANGING)}


def test_every_recipient_is_known_to_the_pipelines() -> None:
    users = build_users()["data"]["users.yaml"]
    assert all(f'"{recipient}"' in users for recipient in list_recipients())
    dealer = Dealer(TRACES["stuck"], seed=1)
    assert {arrival.recipient for second in range(360) for arrival in dealer.deal(second, 1.0)} <= set(
        list_recipients()
    )


def test_an_age_is_that_of_the_oldest_record_that_waits() -> None:
    ledger = Ledger(2)
    ledger.produced_at = [[1.0, 5.0], [3.0]]
    ledger.finished = [1, 0]
    assert ledger.measure_age(10.0) == 7.0
    assert ledger.lag == 2


def test_nothing_that_waits_has_no_age() -> None:
    ledger = Ledger(1)
    ledger.produced_at = [[1.0]]
    ledger.finished = [1]
    assert ledger.measure_age(10.0) == 0.0


def test_a_second_has_the_value_last_seen_in_it() -> None:
    samples = [sample(0.2, age=1), sample(1.3, age=2), sample(3.4, age=3), sample(3.9, age=4)]
    assert list(fill_seconds(samples, 6, lambda each: int(each.age_seconds))) == [1, 2, 2, 4, 4, 4]


def test_a_partition_that_nobody_holds_for_a_moment_moves_once() -> None:
    assert count_moves([{0: "a", 1: "a"}, {1: "a"}, {0: "b", 1: "a"}, {0: "b", 1: "a"}]) == 1


def test_the_first_members_are_no_move() -> None:
    assert count_moves([{}, {0: "a"}, {0: "a", 1: "b"}]) == 0


def test_a_run_is_scored_after_its_warm_up() -> None:
    scenario = Scenario("short", [1.0] * 6, warmup_seconds=2)
    seen = [(9, 1), (9, 3), (9, 3), (25, 3), (30, 2), (5, 4)]
    samples = [
        sample(second + 0.5, age=age, replicas=replicas, owners={0: "late" if second == 4 else "early"})
        for second, (age, replicas) in enumerate(seen)
    ]
    run = judge(TOCSIN, samples, scenario, max_lag_seconds=20)
    assert run.policy == TOCSIN
    assert (run.score.over_promise_seconds, run.score.max_lag_seconds) == (2, 30)
    assert (run.score.replica_seconds, run.score.actions, run.score.reversals) == (12, 2, 1)
    assert run.score.moves == 2
    assert list(run.replicas) == [1, 3, 3, 3, 2, 4]


def test_the_longest_silence_is_found() -> None:
    assert find_silence([sample(0), sample(1), sample(5), sample(6)]) == 4
    assert find_silence([sample(0)]) == float("inf")


def test_owners_are_those_of_the_arms_topic() -> None:
    def member(name: str, *held: tuple[str, int]) -> Any:
        partitions = [SimpleNamespace(topic=topic, partition=partition) for topic, partition in held]
        return SimpleNamespace(member_id=name, assignment=SimpleNamespace(topic_partitions=partitions))

    group = SimpleNamespace(group_id="step-keda", members=[member("a", ("step-keda", 0), ("step-keda.retry.10s", 1))])
    assert read_owners(group) == {0: "a"}


def test_all_arms_are_one_pipeline_but_for_who_scales_it() -> None:
    bodies = {}
    for policy in (TOCSIN, KEDA, FLOOR):
        body = build_arm(Arm("step", policy), brokers="kafka:9092", fast_url="http://f", slow_url="http://s")
        consumer = body["spec"]["consumer"]
        bodies[policy] = (
            consumer.pop("replicas"),
            consumer["scaling"].pop("mode"),
            str(body).replace(f"step-{policy}", "*"),
        )
    assert bodies[TOCSIN][:2] == (1, "Auto")
    assert bodies[KEDA][:2] == (1, "Manual")
    assert bodies[FLOOR][:2] == (TERMS.max_replicas, "Manual")
    assert len({rest for _, _, rest in bodies.values()}) == 1


def test_keda_is_told_what_a_pod_does_in_five_seconds() -> None:
    spec = build_scaled_object("step-keda", brokers="kafka:9092", topic="t", group="g")["spec"]
    assert spec["triggers"][0]["metadata"]["lagThreshold"] == str(LAG_THRESHOLD) == str(int(5 * PER_SECOND))
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (TERMS.min_replicas, TERMS.max_replicas)


def test_keda_comes_without_its_admission_webhooks_and_with_the_built_image() -> None:
    def deployment(name: str) -> dict[str, Any]:
        containers = [{"name": name, "image": "ghcr.io/kedacore/keda:latest", "imagePullPolicy": "Always"}]
        spec = {"template": {"spec": {"containers": containers}}}
        return {"kind": "Deployment", "metadata": {"name": name}, "spec": spec}

    hooks = {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "any"}}
    kept = adapt_objects([deployment("keda-operator"), deployment("keda-admission"), hooks])
    [operator] = kept
    [container] = operator["spec"]["template"]["spec"]["containers"]
    assert container == {"name": "keda-operator", "image": IMAGE, "imagePullPolicy": "IfNotPresent"}
