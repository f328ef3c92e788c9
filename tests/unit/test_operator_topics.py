"""Topics as they should be, what a 202 rests on, and a Kafka that does not answer holding up nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pipelines import parse_stored, prefix
from tocsin_core.admin import TopicFacts
from tocsin_core.errors import KafkaUnavailable
from tocsin_operator.model import Pipeline
from tocsin_operator.topics import TopicAdmin, TopicKeeper, TopicReport, build_topics, claim_durable

DAY_MILLISECONDS = 86_400_000


def pipeline_of(*, generation: int = 1, ttl_seconds: int = 86_400, **topic: Any) -> Pipeline:
    changes = {"metadata.generation": generation, "spec.delivery.ttlSeconds": ttl_seconds}
    return parse_stored({**changes, **prefix("spec.kafka.topic", topic)})


def facts(*, replication_factor: int = 3, min_insync_replicas: int | None = 2, partitions: int = 12) -> TopicFacts:
    return TopicFacts("orders", partitions, replication_factor, min_insync_replicas, {})


def test_a_managed_topic_comes_with_its_retry_topics_and_its_dead_letter_topic() -> None:
    topic, *retries, dead_letters = build_topics(pipeline_of(replicationFactor=3))
    assert (topic.name, topic.partitions, topic.replication_factor) == ("orders", 12, 3)
    assert [each.name for each in retries] == ["orders.retry.10s", "orders.retry.1m", "orders.retry.10m"]
    assert {(each.partitions, each.replication_factor, each.may_grow) for each in retries} == {(12, 3, True)}
    assert {each.config["min.insync.replicas"] for each in retries} == {"2"}
    assert (dead_letters.name, dead_letters.partitions, dead_letters.may_grow) == ("orders.dlq", 3, False)


def test_a_retry_record_is_kept_until_its_notification_has_expired() -> None:
    ttl_seconds = 30 * 86_400
    for retries in build_topics(pipeline_of(ttl_seconds=ttl_seconds))[1:-1]:
        assert int(retries.config["retention.ms"]) == (ttl_seconds + 600) * 1000


def test_an_external_topic_is_nobody_s_business() -> None:
    assert build_topics(pipeline_of(management="External")) == ()


@pytest.mark.parametrize(("factor", "expected"), [(None, None), (1, None), (2, None), (3, "2"), (5, "2")])
def test_two_brokers_must_acknowledge_where_three_hold_the_record(factor: int | None, expected: str | None) -> None:
    topic = build_topics(pipeline_of(replicationFactor=factor))[0]
    assert topic.config.get("min.insync.replicas") == expected


def test_the_user_s_own_configuration_counts() -> None:
    topic = build_topics(pipeline_of(replicationFactor=3, config={"min.insync.replicas": "3", "a": "b"}))[0]
    assert (topic.config["min.insync.replicas"], topic.config["a"]) == ("3", "b")


@pytest.mark.parametrize(
    ("ttl_days", "wished", "kept_days"), [(1, None, 7), (30, None, 30), (30, 2, 30), (1, 2, 2), (1, -1, -1)]
)
def test_records_are_kept_at_least_as_long_as_notifications_live(
    ttl_days: int, wished: int | None, kept_days: int
) -> None:
    config = {} if wished is None else {"retention.ms": str(wished if wished < 0 else wished * DAY_MILLISECONDS)}
    topic = build_topics(pipeline_of(ttl_seconds=ttl_days * 86_400, config=config))[0]
    kept = int(topic.config["retention.ms"])
    assert kept == (kept_days if kept_days < 0 else kept_days * DAY_MILLISECONDS)


def test_retry_records_and_dead_letters_have_room_for_the_headers_that_say_why() -> None:
    topic, *others = build_topics(pipeline_of(config={"max.message.bytes": "2000000"}))
    assert all(int(each.config["max.message.bytes"]) > int(topic.config["max.message.bytes"]) for each in others)


@pytest.mark.parametrize(
    ("seen", "status", "reason"),
    [
        (facts(), True, "AcksFromFollowers"),
        (facts(min_insync_replicas=1), False, "LeaderAlone"),
        (facts(replication_factor=1), False, "LeaderAlone"),
        (facts(min_insync_replicas=None), None, "ConfigUnreadable"),
        (None, None, "TopicUnknown"),
    ],
)
def test_the_condition_says_what_a_202_rests_on(seen: TopicFacts | None, status: bool | None, reason: str) -> None:
    claim = claim_durable(pipeline_of(), TopicReport(facts=seen))
    assert (claim.is_true, claim.reason) == (status, reason)


class Kafka:
    """An admin that answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.questions = 0
        self.failure: Exception | None = None
        self.config: dict[str, str] = {}

    async def describe_topic(self, name: str) -> TopicFacts:
        self.questions += 1
        await self.may_answer.wait()
        if self.failure:
            raise self.failure
        return replace(facts(), name=name, config=self.config)

    async def create_topic(self, name: str, **_: Any) -> None:
        raise AssertionError(name)

    async def grow_topic(self, name: str, partitions: int) -> None:
        raise AssertionError(name, partitions)

    async def find(self, pipeline: Pipeline) -> TopicAdmin:
        del pipeline
        return self


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_kafka_that_does_not_answer_is_waited_for_no_longer_than_said() -> None:
    kafka = Kafka()
    news: list[str] = []
    keeper = TopicKeeper(kafka.find, clock=Clock(), on_change=news.append)
    assert await keeper.ensure(pipeline_of(), wait_seconds=0.01) == TopicReport()
    kafka.may_answer.set()
    await settle()
    assert news == ["shop/orders"]
    assert (await keeper.ensure(pipeline_of(), wait_seconds=0)).facts == facts()
    await keeper.close()


async def test_what_was_found_is_not_asked_again_until_it_is_old() -> None:
    kafka, clock = Kafka(), Clock()
    kafka.may_answer.set()
    keeper = TopicKeeper(kafka.find, clock=clock, on_change=lambda _: None)
    await keeper.ensure(pipeline_of(), wait_seconds=5)
    asked = kafka.questions
    await keeper.ensure(pipeline_of(), wait_seconds=5)
    assert kafka.questions == asked
    clock.now += 3600
    await keeper.ensure(pipeline_of(), wait_seconds=5)
    await settle()
    assert kafka.questions > asked
    await keeper.close()


async def test_a_failure_is_a_problem_and_is_tried_again_soon() -> None:
    kafka, clock = Kafka(), Clock()
    news: list[str] = []
    kafka.may_answer.set()
    kafka.failure = KafkaUnavailable("away", advice="start it")
    keeper = TopicKeeper(kafka.find, clock=clock, on_change=news.append)
    report = await keeper.ensure(pipeline_of(), wait_seconds=5)
    assert report.problem is not None
    assert "away; start it" in report.problem.message
    kafka.failure = None
    clock.now += 16
    await keeper.ensure(pipeline_of(), wait_seconds=0)
    await settle()
    assert (await keeper.ensure(pipeline_of(), wait_seconds=0)).problem is None
    assert news == ["shop/orders", "shop/orders"]
    await keeper.close()


async def test_a_setting_that_is_no_number_is_a_problem_that_says_what_to_write() -> None:
    keeper = TopicKeeper(Kafka().find, clock=Clock(), on_change=lambda _: None)
    report = await keeper.ensure(pipeline_of(config={"retention.ms": "7d"}), wait_seconds=5)
    assert report.problem is not None
    assert report.problem.reason == "TopicFailed"
    assert "retention.ms '7d': write milliseconds" in report.problem.message
    await keeper.close()


async def test_a_fault_of_the_operator_s_own_is_a_problem_and_is_tried_again_soon() -> None:
    kafka, clock = Kafka(), Clock()
    kafka.may_answer.set()
    kafka.failure = ValueError("nobody thought of this")
    keeper = TopicKeeper(kafka.find, clock=clock, on_change=lambda _: None)
    report = await keeper.ensure(pipeline_of(), wait_seconds=5)
    assert report.problem is not None
    assert report.problem.reason == "TopicFailed"
    assert "nobody thought of this" in report.problem.message
    kafka.failure = None
    clock.now += 16
    await keeper.ensure(pipeline_of(), wait_seconds=0)
    await settle()
    assert (await keeper.ensure(pipeline_of(), wait_seconds=0)).problem is None
    await keeper.close()


async def test_a_topic_that_forgets_too_soon_is_a_warning_and_is_looked_at_again_soon() -> None:
    kafka, clock = Kafka(), Clock()
    kafka.may_answer.set()
    kafka.config = {"retention.ms": "3600000"}
    keeper = TopicKeeper(kafka.find, clock=clock, on_change=lambda _: None)
    report = await keeper.ensure(pipeline_of(management="External"), wait_seconds=5)
    assert report.problem is None
    assert [warning.reason for warning in report.warnings] == ["RetentionTooShort"]
    kafka.config = {"retention.ms": "-1"}
    clock.now += 16
    await keeper.ensure(pipeline_of(management="External"), wait_seconds=0)
    await settle()
    assert (await keeper.ensure(pipeline_of(management="External"), wait_seconds=0)).warnings == ()
    await keeper.close()


async def test_another_version_of_the_pipeline_does_not_wait_behind_the_old_one() -> None:
    kafka = Kafka()
    keeper = TopicKeeper(kafka.find, clock=Clock(), on_change=lambda _: None)
    await keeper.ensure(pipeline_of(generation=1), wait_seconds=0)
    await settle()
    await keeper.ensure(pipeline_of(generation=2), wait_seconds=0)
    await settle()
    kafka.may_answer.set()
    assert (await keeper.ensure(pipeline_of(generation=2), wait_seconds=5)).facts == facts()
    assert kafka.questions == 11  # one abandoned; then all five topics, and all again as they are now
    await keeper.close()
