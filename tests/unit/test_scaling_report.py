from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from scaling_cases import EPOCH, Flow, build_observation, replay
from tocsin_core.errors import KafkaUnavailable, NotAuthenticated, NotAuthorized, TocsinError, TopicMissing
from tocsin_operator.scaling.capacity import estimate_capacity
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import Ceiling, Config, Reason, State
from tocsin_operator.scaling.ports import Report, Target
from tocsin_operator.scaling.record import restore_state
from tocsin_operator.scaling.report import build_claims, build_status, is_news

CONFIG = Config(max_lag_seconds=60, interval_seconds=5, capacity_per_second=100)
TARGET = Target("ns/orders", "u1", "kafka:9092", "ns.orders", "orders", CONFIG)


def report(flow: Flow, config: Config = CONFIG, **changes: Any) -> Report:
    _, state = replay(flow.looks(0, 100, 5), config)
    look = flow.look(105)
    decision, state = decide(look, state, config)
    return Report(TARGET, look.time_seconds, look, decision, state, **changes)


def test_a_pass_without_trouble_claims_both_conditions() -> None:
    scaling, kafka, _, _ = build_claims(report(Flow(per_second=10)))
    assert (scaling.type, scaling.is_true, scaling.reason) == ("ScalingActive", True, "WithinPromise")
    assert (kafka.type, kafka.is_true, kafka.reason) == ("KafkaReachable", True, "OffsetsRead")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KafkaUnavailable("no broker answers"), "BrokerUnreachable"),
        (NotAuthenticated("wrong password"), "NotAuthenticated"),
        (NotAuthorized("may not describe"), "NotAuthorized"),
        (TopicMissing("no topic orders"), "TopicMissing"),
        (TocsinError("something else"), "KafkaError"),
    ],
)
def test_a_kafka_failure_is_named_by_its_kind(error: TocsinError, reason: str) -> None:
    _, kafka, _, _ = build_claims(report(Flow(), kafka_failure=error))
    assert (kafka.is_true, kafka.reason, kafka.message) == (False, reason, str(error))


def test_a_kafka_failure_s_advice_stands_in_the_condition() -> None:
    error = KafkaUnavailable("no broker answers", advice="check spec.kafka.bootstrapServers")
    _, kafka, _, _ = build_claims(report(Flow(), kafka_failure=error))
    assert kafka.message == "no broker answers; check spec.kafka.bootstrapServers"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"is_suspended": True}, "Suspended"), ({"mode": "Manual"}, "Manual")],
)
def test_scaling_is_not_active_where_somebody_else_says_the_number(changes: dict[str, Any], reason: str) -> None:
    scaling, _, _, _ = build_claims(report(Flow(), msgspec.structs.replace(CONFIG, **changes)))
    assert (scaling.is_true, scaling.reason) == (False, reason)


def test_a_missing_deployment_is_said() -> None:
    scaling, _, _, _ = build_claims(Report(TARGET, EPOCH))
    assert (scaling.is_true, scaling.reason) == (False, "DeploymentMissing")


def test_an_error_of_the_operator_is_said() -> None:
    scaling, _, _, _ = build_claims(Report(TARGET, EPOCH, failure=ZeroDivisionError("oh")))
    assert (scaling.is_true, scaling.reason, scaling.message) == (False, "ZeroDivisionError", "oh")


def test_the_status_has_the_design_s_fields() -> None:
    status = build_status(report(Flow(per_second=500, lag=2_400)), {})
    assert status["kafka"] == {
        "partitions": 12,
        "totalLag": 2_400,
        "maxPartitionLag": 200,
        "lagSeconds": 4.8,
        "observedTime": "1970-01-12T13:48:25Z",
    }
    scaling = status["scaling"]
    assert (scaling["reason"], scaling["limitedBy"]) == ("DemandExceedsCapacity", "None")
    assert (scaling["capacityPerSecond"], scaling["capacitySource"]) == (100.0, "Hint")
    assert scaling["arrivalPerSecond"] == 500.0
    assert "lastScaleTime" not in scaling


def test_an_action_is_timed() -> None:
    scaling = build_status(report(Flow(per_second=500, lag=2_400), has_acted=True), {})["scaling"]
    assert scaling["lastScaleTime"] == "1970-01-12T13:48:25Z"


def test_what_could_not_be_found_out_stays_as_it_was() -> None:
    before = build_status(report(Flow(per_second=10)), {})
    assert build_status(Report(TARGET, EPOCH), before) == before


def test_a_learned_capacity_and_the_last_action_survive_a_restart() -> None:
    status = {
        "scaling": {"capacityPerSecond": 83.4, "capacitySource": "Observed", "lastScaleTime": "2026-11-23T08:00:00Z"}
    }
    state = restore_state(status, CONFIG)
    assert estimate_capacity(state, msgspec.structs.replace(CONFIG, capacity_per_second=None)) == (83.4, "Observed")
    assert state.last_scale_seconds == datetime(2026, 11, 23, 8, tzinfo=UTC).timestamp()


def test_a_hint_is_not_mistaken_for_something_learned() -> None:
    status = {"scaling": {"capacityPerSecond": 100, "capacitySource": "Hint"}}
    assert restore_state(status, CONFIG).windows == ()


def test_nothing_is_restored_from_an_empty_status() -> None:
    assert restore_state({}, CONFIG) == State()


def status_of(flow: Flow, **changes: Any) -> dict[str, Any]:
    each = report(flow, **changes)
    conditions = [{"type": c.type, "status": str(c.is_true), "reason": c.reason} for c in build_claims(each)]
    return {**build_status(each, {}), "conditions": conditions}


def is_due(after: dict[str, Any], before: dict[str, Any], seconds: float) -> bool:
    return is_news(after, before, CONFIG, seconds_since_write=seconds)


def test_an_idle_pipeline_is_never_news() -> None:
    before, after = status_of(Flow(per_second=0)), status_of(Flow(per_second=0))
    after["kafka"]["observedTime"] = "later"
    assert not is_due(after, before, 100_000)


def test_lag_that_flickers_is_written_once_a_minute() -> None:
    before, after = status_of(Flow(per_second=10, lag=24)), status_of(Flow(per_second=10, lag=36))
    assert [is_due(after, before, seconds) for seconds in (5, 30, 59, 60)] == [False, False, False, True]


def test_lag_of_another_magnitude_is_written_soon() -> None:
    before, after = status_of(Flow(per_second=100, lag=24)), status_of(Flow(per_second=100, lag=960))
    assert [is_due(after, before, seconds) for seconds in (5, 10)] == [False, True]


def test_an_action_is_written_at_once() -> None:
    before = status_of(Flow(per_second=500, lag=2_400))
    assert is_due(status_of(Flow(per_second=500, lag=2_400), has_acted=True), before, 0)


def test_a_condition_that_turns_is_written_at_once() -> None:
    before = status_of(Flow(per_second=10))
    assert is_due(status_of(Flow(per_second=10), kafka_failure=KafkaUnavailable("down")), before, 0)


def test_every_reason_is_a_word_that_a_condition_may_carry() -> None:
    assert all(reason.value.isalpha() and reason.value[0].isupper() for reason in Reason)


def test_a_stuck_partition_is_a_condition_of_its_own_with_its_offset() -> None:
    looks = [
        build_observation(second, [(1_000 + 5 * second, 1_000 + 5 * second)] * 11 + [(1_000 + 5 * second, 700)])
        for second in range(0, 100, 5)
    ]
    decision, state = replay(looks, CONFIG)
    _, _, partitions, _ = build_claims(Report(TARGET, looks[-1].time_seconds, looks[-1], decision, state))
    assert (partitions.is_true, partitions.reason) == (False, "PartitionStuck")
    assert "topic orders, partition 11 at offset 700" in partitions.message


def test_partitions_that_all_move_are_said_to() -> None:
    _, _, partitions, _ = build_claims(report(Flow(per_second=50)))
    assert (partitions.type, partitions.is_true, partitions.reason) == ("PartitionsMoving", True, "AllMoving")


def test_nothing_is_claimed_of_partitions_that_were_not_seen() -> None:
    _, _, partitions, _ = build_claims(Report(TARGET, EPOCH))
    assert (partitions.is_true, partitions.reason) == (None, "NotObserved")


def test_what_must_survive_a_restart_comes_back_from_the_status() -> None:
    ceiling = Ceiling(per_second=200.0, replicas=3, hold_seconds=600.0, until_seconds=EPOCH + 500)
    decision, state = replay(Flow(per_second=10).looks(0, 100, 5), CONFIG)
    state = msgspec.structs.replace(state, ceiling=ceiling, startup_seconds=31.0)
    decision = msgspec.structs.replace(
        decision,
        inputs=msgspec.structs.replace(decision.inputs, capacity_source="Measured", capacity_per_second=123.0),
    )
    status = build_status(Report(TARGET, EPOCH, decision=decision, state=state, has_acted=True), {})
    restored = restore_state(status, CONFIG)
    assert restored.ceiling == ceiling
    assert (restored.startup_seconds, restored.measured_per_second, restored.last_scale_seconds) == (31, 123, EPOCH)


def test_the_last_five_changes_are_kept_newest_first() -> None:
    previous: dict[str, Any] = {}
    for number in range(7):
        given = report(Flow(lag=50_000 + number), has_acted=True)
        previous = build_status(given, previous)
    history = previous["scaling"]["history"]
    assert len(history) == 5
    assert "50006 waiting" in history[0]["message"]
    assert all(len(entry["candidates"]) <= 12 for entry in history)


def test_a_status_that_makes_no_sense_is_forgotten_and_not_feared() -> None:
    status = {"scaling": {"downstream": {"perSecond": 5, "replicas": "many"}}}
    assert restore_state(status, CONFIG).ceiling is None
