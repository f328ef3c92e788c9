"""The reader sees what comes after it began, and needs no group for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from confluent_kafka import Producer

from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import TopicMissing
from tocsin_core.reader import TopicReader
from tocsin_core.settings import KafkaConnection

pytestmark = pytest.mark.kafka


def produce(kafka: EmbeddedKafka, topic: str, values: list[bytes], *, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0


@pytest.fixture
async def reader(kafka_connection: KafkaConnection, topic: str) -> AsyncIterator[TopicReader]:
    opened = TopicReader(kafka_connection, topic, client_id="tests-reader")
    yield opened
    await opened.close()


async def test_only_what_came_after_the_beginning_is_read_and_once(
    kafka: EmbeddedKafka, topic: str, reader: TopicReader
) -> None:
    produce(kafka, topic, [b"before"])
    await reader.begin()
    assert await reader.read_new() == []
    produce(kafka, topic, [b"%d" % number for number in range(1500)])
    produce(kafka, topic, [b"elsewhere"], partition=3)
    records = await reader.read_new()
    assert [record.value for record in records if record.partition == 0] == [b"%d" % each for each in range(1500)]
    assert [record.value for record in records if record.partition == 3] == [b"elsewhere"]
    assert await reader.read_new() == []


async def test_a_partition_that_was_added_is_read_from_its_start(
    kafka: EmbeddedKafka, topic: str, admin: KafkaAdmin, reader: TopicReader
) -> None:
    await reader.begin()
    await admin.grow_topic(topic, 6)
    produce(kafka, topic, [b"in the new one"], partition=5)
    assert [(record.partition, record.value) for record in await reader.read_new()] == [(5, b"in the new one")]


async def test_a_topic_that_is_not_there_is_named_so(kafka_connection: KafkaConnection) -> None:
    reader = TopicReader(kafka_connection, "no-such-topic", client_id="tests-reader")
    with pytest.raises(TopicMissing):
        await reader.begin()
    await reader.close()
