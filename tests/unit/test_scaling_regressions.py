"""Situations in which users of other scalers were hurt, by the upstream issue that tells the story."""

from __future__ import annotations

import msgspec
import pytest

from scaling_cases import Flow, build_observation, replay
from scaling_plant import Plant
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import Config, Reason, State
from tocsin_operator.scaling.ports import Target

CONFIG = Config(max_lag_seconds=60, interval_seconds=5, capacity_per_second=100, max_replicas=100)


@pytest.mark.parametrize("lag", [50_001, 55_000, 59_999, 10_000_000])
def test_no_lag_buys_one_pod_more_than_there_are_partitions(lag: int) -> None:
    # kedacore/keda#4483: five partitions, six pods, because the cap divides whole numbers
    decision, _ = decide(Flow(lag=lag, partitions=5, offset=10_000_000).look(0), State(), CONFIG)
    assert decision.replicas == 5


@pytest.mark.parametrize("partitions", [12, 24, 64])
def test_a_group_that_needs_every_partition_gets_there_from_just_below(partitions: int) -> None:
    # kedacore/keda#4791: 22 of 24 pods and never more, because the cap and a tolerance of 10 % collide
    demand = 0.8 * 100 * partitions
    flow = Flow(per_second=demand, lag=int(70 * demand), partitions=partitions, spec=partitions - 1)
    decision, _ = replay(flow.looks(0, 100, 5), msgspec.structs.replace(CONFIG, capacity_per_second=100))
    assert decision.replicas == partitions


def test_a_group_that_never_committed_reads_as_the_records_that_are_there() -> None:
    # kedacore/keda#5906: an offset of -1 is neither no lag nor a lag of one
    decision, _ = decide(build_observation(0, [(100, None)] * 12), State(), CONFIG)
    assert decision.inputs.total_lag == 1_200


def test_a_partition_that_stands_still_without_ever_a_commit_drives_nothing_to_the_maximum() -> None:
    # kedacore/keda#5906: persistent lag is not excluded where the committed offset is -1
    state = State()
    for second in range(0, 3_600, 5):
        offsets = [(1_000 + 5 * second, 1_000 + 5 * second)] * 11 + [(5 * second, None)]
        decision, state = decide(build_observation(second, offsets, spec=2), state, CONFIG)
        assert decision.replicas <= 2
    assert decision.inputs.stuck_partitions == (11,)


def test_the_marker_of_a_transaction_is_not_lag_for_ever() -> None:
    # kedacore/keda#5675: one record a partition that no consumer ever sees keeps the group from going down
    looks = [build_observation(second, [(1_001, 1_000)] * 12, spec=12) for second in range(0, 600, 5)]
    decision, _ = replay(looks, CONFIG)
    assert (decision.replicas, decision.reason) == (1, Reason.FITS_IN_FEWER)


def test_the_marker_of_a_transaction_is_not_a_stuck_partition() -> None:
    # kedacore/keda#5675, seen from rule 3: others move on while the marker stays
    looks = [
        build_observation(second, [(1_000 + 5 * second, 1_000 + 5 * second)] * 11 + [(1_001, 1_000)])
        for second in range(0, 600, 5)
    ]
    decision, _ = replay(looks, CONFIG)
    assert decision.inputs.stuck_partitions == ()


def test_a_group_without_any_commit_is_measured_on_its_own_topic_alone() -> None:
    # kedacore/keda#8114: a group without offsets reads as the lag of every topic of the cluster
    target = Target("ns/orders", "u1", "kafka:9092", "ns.orders", "orders", CONFIG)
    assert target.topic == "orders"
    decision, _ = decide(build_observation(0, [(40, None)] * 12), State(), CONFIG)
    assert (decision.inputs.total_lag, decision.replicas) == (480, 1)


def test_an_answer_with_negative_offsets_is_not_a_reason_for_any_number() -> None:
    # kedacore/keda#4552, #5438: wrong or missing values mean the maximum
    decision, _ = decide(build_observation(0, [(-1, None)] * 12, spec=3), State(), CONFIG)
    assert (decision.replicas, decision.reason) == (3, Reason.METRICS_UNAVAILABLE)


def test_a_partition_missing_in_an_answer_is_not_a_partition_without_lag() -> None:
    # kedacore/keda#7414: brokers are replaced, answers are partial, consumers are scaled away
    flow = Flow(per_second=500, lag=3_000, spec=6)
    _, state = replay(flow.looks(0, 400, 5), CONFIG)
    for second in range(405, 3_000, 5):
        look = flow.look(second)
        decision, state = decide(msgspec.structs.replace(look, partitions=look.partitions[6:]), state, CONFIG)
        assert (decision.replicas, decision.reason) == (6, Reason.METRICS_UNAVAILABLE)


def test_history_that_expired_is_not_lag() -> None:
    # kedacore/keda#7936: lag is counted from an offset that retention has removed
    look = build_observation(0, [(1_000_000, 10)] * 12, log_start=999_990)
    decision, _ = decide(look, State(), CONFIG)
    assert (decision.inputs.total_lag, decision.replicas) == (120, 1)


def test_history_that_expired_is_not_lag_for_a_group_that_never_committed() -> None:
    # kedacore/keda#7936
    decision, _ = decide(build_observation(0, [(1_000_000, None)] * 12, log_start=999_990), State(), CONFIG)
    assert (decision.inputs.total_lag, decision.replicas) == (120, 1)


def test_any_load_is_not_a_reason_for_all_pods() -> None:
    # kedacore/keda#776: the default threshold of ten messages means the maximum for everybody
    plant = Plant(msgspec.structs.replace(CONFIG, max_replicas=12), lambda _: 60, pod_per_second=100)
    plant.run(600)
    assert max(plant.counts) == 1


def test_nothing_is_scaled_in_while_a_backlog_drains() -> None:
    # kedacore/keda#5096: scaling in as the backlog shrinks rebalances again and again, and halts the drain
    config = msgspec.structs.replace(CONFIG, max_replicas=12)
    plant = Plant(config, lambda second: 1_100 if second < 60 else 20)
    plant.run(900)
    ins = [
        index
        for index, (before, after) in enumerate(zip(plant.counts, plant.counts[1:], strict=False))
        if after < before
    ]
    assert ins
    assert all(plant.ages[index] <= config.quiet_seconds for index in ins)
