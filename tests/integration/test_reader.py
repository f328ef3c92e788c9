"""The readers need no group: one sees what comes after it began, the other any stretch of a log, holes or not."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from raw_producer import produce_with_header
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import KafkaUnavailable, TopicMissing
from tocsin_core.reader import RangeReader, Stretch, TopicReader
from tocsin_core.settings import KafkaConnection

pytestmark = pytest.mark.kafka


def produce(kafka: EmbeddedKafka, topic: str, values: list[bytes], *, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0


def produce_in_transactions(kafka: EmbeddedKafka, topic: str, batches: list[tuple[list[bytes], bool]]) -> None:
    """Write each batch to partition 0 in a transaction, which is then committed (True) or aborted."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": secrets.token_hex(4)})
    producer.init_transactions(30)
    for values, is_committed in batches:
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=0)
        assert producer.flush(30) == 0
        (producer.commit_transaction if is_committed else producer.abort_transaction)(30)


def summarize(stretch: Stretch) -> tuple[list[tuple[int, bytes | None]], int]:
    return [(record.offset, record.value) for record in stretch.records], stretch.next_offset


@pytest.fixture
async def ranges(kafka_connection: KafkaConnection) -> AsyncIterator[RangeReader]:
    opened = RangeReader(kafka_connection, client_id="tests-ranges")
    yield opened
    await opened.close()


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


async def test_a_stretch_is_read_from_its_start_and_says_where_to_go_on(
    kafka: EmbeddedKafka, topic: str, ranges: RangeReader
) -> None:
    produce(kafka, topic, [b"%d" % number for number in range(3000)])
    position, values = 500, list[bytes | None]()
    while stretch := await ranges.read(topic, 0, position, max_records=700):
        assert stretch.next_offset == position + len(stretch.records)
        position = stretch.next_offset
        values += [record.value for record in stretch.records]
        if not stretch.records:
            break
    assert position == 3000
    assert values == [b"%d" % number for number in range(500, 3000)]


async def test_a_stretch_ends_with_the_record_that_fills_it_and_the_next_begins_behind_it(
    kafka: EmbeddedKafka, topic: str, ranges: RangeReader
) -> None:
    values = [b"%d" % number + secrets.token_bytes(100_000) for number in range(30)]
    produce(kafka, topic, values)
    found: list[bytes | None] = []
    while len(found) < 30:
        stretch = await ranges.read(topic, 0, len(found), max_records=100, max_bytes=250_000)
        assert len(stretch.records) == 3
        assert stretch.next_offset == len(found) + 3
        found += [record.value for record in stretch.records]
    assert set(found) == set(values)
    for start in (7, 20, 3):  # what was read ahead of one place is not taken for another's
        stretch = await ranges.read(topic, 0, start, max_records=100, max_bytes=1)
        assert [record.offset for record in stretch.records] == [start]


async def test_a_record_with_a_header_whose_name_is_no_text_is_read_without_its_headers(
    kafka: EmbeddedKafka, topic: str, ranges: RangeReader
) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for _ in range(50):  # Python checks the results of calls less closely that it makes often
        producer.produce(topic, b"value", b"key", headers=[("good", b"x")])
    assert producer.flush(30) == 0
    for name in (b"\xe4bad", b"\xe4bad", b"good"):
        produce_with_header(kafka.bootstrap_servers, topic, b"value", b"key", name=name, content=b"x")
    found = [await ranges.read(topic, partition, 0, max_records=100) for partition in range(4)]
    records = [record for stretch in found for record in stretch.records]
    assert {(record.key, record.value) for record in records} == {(b"key", b"value")}
    good = (("good", b"x"),)
    assert [record.headers for record in records] == [*[good] * 50, (), (), good]


async def test_stretches_of_several_partitions_and_backwards_are_never_mixed_up(
    kafka: EmbeddedKafka, topic: str, ranges: RangeReader
) -> None:
    for partition in range(4):
        produce(kafka, topic, [b"%d/%d" % (partition, number) for number in range(100)], partition=partition)
    for partition, start in [(2, 50), (1, 0), (2, 40), (2, 60), (3, 99), (2, 0), (2, 10), (2, 5)]:
        stretch = await ranges.read(topic, partition, start, max_records=10)
        expected = [(number, b"%d/%d" % (partition, number)) for number in range(start, min(start + 10, 100))]
        assert summarize(stretch) == (expected, expected[-1][0] + 1)


async def test_the_end_of_the_log_is_said_at_once_and_what_comes_later_is_read_from_there(
    kafka: EmbeddedKafka, topic: str, ranges: RangeReader
) -> None:
    assert await ranges.read(topic, 0, 0, max_records=10) == Stretch([], 0)
    produce(kafka, topic, [b"first"])
    assert summarize(await ranges.read(topic, 0, 0, max_records=10)) == ([(0, b"first")], 1)
    assert await ranges.read(topic, 0, 1, max_records=10) == Stretch([], 1)
    produce(kafka, topic, [b"second"])
    assert summarize(await ranges.read(topic, 0, 1, max_records=10)) == ([(1, b"second")], 2)


async def test_transaction_markers_and_aborted_records_are_passed_over(
    kafka: EmbeddedKafka, topic: str, ranges: RangeReader
) -> None:
    produce_in_transactions(kafka, topic, [([b"a", b"b"], True), ([b"never"], False), ([b"c"], True)])
    # 0 a, 1 b, 2 marker, 3 aborted, 4 marker, 5 c, 6 marker
    assert summarize(await ranges.read(topic, 0, 0, max_records=2)) == ([(0, b"a"), (1, b"b")], 2)
    assert summarize(await ranges.read(topic, 0, 2, max_records=2)) == ([(5, b"c")], 7)
    assert summarize(await ranges.read(topic, 0, 3, max_records=1)) == ([(5, b"c")], 6)
    assert await ranges.read(topic, 0, 6, max_records=2) == Stretch([], 7)


async def test_a_start_that_retention_has_deleted_moves_up_to_what_is_left(
    kafka: EmbeddedKafka, topic: str, ranges: RangeReader
) -> None:
    produce(kafka, topic, [b"%d" % number for number in range(10)])
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for deleted in client.delete_records([TopicPartition(topic, 0, 7)]).values():
        deleted.result(30)
    assert summarize(await ranges.read(topic, 0, 2, max_records=2)) == ([(7, b"7"), (8, b"8")], 9)


async def test_a_start_beyond_the_end_of_the_log_never_leads_backwards(
    kafka: EmbeddedKafka, topic: str, ranges: RangeReader
) -> None:
    produce(kafka, topic, [b"one"])
    assert await ranges.read(topic, 0, 12, max_records=2) == Stretch([], 12)
    assert await ranges.read(topic, 1, 12, max_records=2) == Stretch([], 12)


async def test_a_stretch_of_a_topic_that_is_not_there_is_named_so(ranges: RangeReader) -> None:
    with pytest.raises(TopicMissing):
        await ranges.read("no-such-topic", 0, 0, max_records=1, timeout_seconds=1)


async def test_a_broker_that_is_not_there_is_unavailable_and_not_an_empty_stretch() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        connection = KafkaConnection(brokers=[f"127.0.0.1:{silent.getsockname()[1]}"])
        reader = RangeReader(connection, client_id="tests-ranges")
        with pytest.raises(KafkaUnavailable, match="refused"):
            await reader.read("any", 0, 0, max_records=1, timeout_seconds=1)
        await reader.close()


async def test_a_read_that_is_given_up_does_not_disturb_the_next_one_nor_the_closing(
    kafka: EmbeddedKafka, topic: str, ranges: RangeReader
) -> None:
    produce(kafka, topic, [b"%d" % number for number in range(100)])
    for start in (10, 20, 30):
        given_up = asyncio.create_task(ranges.read(topic, 0, start, max_records=5))
        await asyncio.sleep(0)
        given_up.cancel()
    assert summarize(await ranges.read(topic, 0, 40, max_records=1)) == ([(40, b"40")], 41)
    given_up = asyncio.create_task(ranges.read("no-such-topic", 0, 0, max_records=1))
    await asyncio.sleep(0)
    given_up.cancel()
