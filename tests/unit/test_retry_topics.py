"""Which retry topics can be used, and what is said about those that cannot."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from tocsin_consumer.retry_topics import RetryTopics
from tocsin_core.errors import KafkaFailure, KafkaUnavailable, NotAuthorized, RecordRejected, TopicMissing
from tocsin_core.message import Record
from tocsin_core.retry import build_tiers
from tocsin_core.retry_record import Deferral

TIERS = build_tiers("orders")
SHORT, MIDDLE, LONG = (tier.topic for tier in TIERS)
ORIGIN = Record("orders", 7, 1, 0, None, b"{}", ())
DEFERRAL = Deferral("hook", 0, 1, None, "")


class Broker:
    """Topics and what the user may not do with them."""

    def __init__(self) -> None:
        self.partitions: dict[str, int | KafkaFailure] = {tier.topic: 4 for tier in TIERS}
        self.refusal: KafkaFailure | None = None
        self.written: list[tuple[str, int | None]] = []

    async def count_partitions(self, topic: str) -> int:
        answer = self.partitions.get(topic, TopicMissing("no such topic"))
        if isinstance(answer, KafkaFailure):
            raise answer
        return answer

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        *,
        partition: int | None = None,
    ) -> None:
        del key, value, headers
        if self.refusal is not None:
            raise self.refusal
        self.written.append((topic, partition))


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def seen() -> list[list[str]]:
    return []


@pytest.fixture
def topics(broker: Broker, seen: list[list[str]]) -> RetryTopics:
    topics = RetryTopics(broker, TIERS)
    topics.on_change = lambda names: seen.append(list(names))
    return topics


async def test_before_a_look_there_are_none(topics: RetryTopics) -> None:
    assert topics.tiers == ()


async def test_those_that_are_there_can_be_used_and_are_told_once(topics: RetryTopics, seen: list[list[str]]) -> None:
    await topics.look()
    await topics.look()
    assert topics.tiers == TIERS
    assert seen == [sorted([SHORT, MIDDLE, LONG])]


async def test_a_missing_topic_is_said_once_with_what_to_create_and_the_others_are_used(
    topics: RetryTopics, broker: Broker
) -> None:
    del broker.partitions[LONG]
    with capture_logs() as lines:
        await topics.look()
        await topics.look()
    assert topics.tiers == TIERS[:2]
    [line] = lines
    assert line["log_level"] == "error"
    assert f"create {LONG} with as many partitions" in line["advice"]


async def test_a_topic_that_was_made_meanwhile_is_used(
    topics: RetryTopics, broker: Broker, seen: list[list[str]]
) -> None:
    del broker.partitions[SHORT]
    await topics.look()
    broker.partitions[SHORT] = 4
    await topics.look()
    assert topics.tiers == TIERS
    assert len(seen) == 2


async def test_a_broker_that_is_away_says_nothing_about_its_topics(topics: RetryTopics, broker: Broker) -> None:
    await topics.look()
    broker.partitions = dict.fromkeys(broker.partitions, KafkaUnavailable("away"))
    with capture_logs() as lines:
        await topics.look()
    assert topics.tiers == TIERS
    assert lines == []


async def test_a_record_goes_to_the_partition_of_its_own_number(topics: RetryTopics, broker: Broker) -> None:
    await topics.look()
    await topics.defer(ORIGIN, TIERS[0], DEFERRAL)
    assert broker.written == [(SHORT, 7 % 4)]


async def test_a_topic_that_may_not_be_written_is_used_no_more_although_it_can_be_seen(
    topics: RetryTopics, broker: Broker
) -> None:
    await topics.look()
    broker.refusal = NotAuthorized("no Write")
    with pytest.raises(NotAuthorized):
        await topics.defer(ORIGIN, TIERS[1], DEFERRAL)
    await topics.look()
    assert topics.tiers == (TIERS[0], TIERS[2])


async def test_a_topic_that_may_not_be_read_is_not_written(topics: RetryTopics) -> None:
    await topics.look()
    topics.refuse(LONG, NotAuthorized("no Read"))
    assert topics.tiers == TIERS[:2]


async def test_a_topic_that_was_deleted_is_used_again_when_it_is_back(topics: RetryTopics, broker: Broker) -> None:
    await topics.look()
    broker.refusal = TopicMissing("gone")
    with pytest.raises(TopicMissing):
        await topics.defer(ORIGIN, TIERS[0], DEFERRAL)
    assert topics.tiers == TIERS[1:]
    await topics.look()
    assert topics.tiers == TIERS


async def test_a_record_that_is_refused_says_nothing_about_the_topic(topics: RetryTopics, broker: Broker) -> None:
    await topics.look()
    broker.refusal = RecordRejected("too large")
    with pytest.raises(RecordRejected):
        await topics.defer(ORIGIN, TIERS[0], DEFERRAL)
    assert topics.tiers == TIERS
