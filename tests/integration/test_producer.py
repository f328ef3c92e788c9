from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import KafkaFailure, KafkaUnavailable, OutcomeUnknown, QueueFull, RecordRejected, TopicMissing
from tocsin_core.outgoing import Stored
from tocsin_core.producer import REPORTS_PER_TURN, RecordProducer
from tocsin_core.settings import KafkaConnection, KafkaSettings

pytestmark = pytest.mark.kafka

NOBODY_LISTENS = "127.0.0.1:1"
LONGEST_ACCEPTABLE_STALL_SECONDS = 0.4


def settings_for(brokers: str, **changes: Any) -> KafkaSettings:
    return KafkaSettings(**{"brokers": [brokers], "topic": "unused", "delivery_timeout_seconds": 10, **changes})


@pytest.fixture
async def producer(kafka: EmbeddedKafka) -> AsyncIterator[RecordProducer]:
    running = RecordProducer(settings_for(kafka.bootstrap_servers), client_id="tests")
    await running.start()
    yield running
    await running.close(5)


@pytest.fixture(scope="module")
def stoppable() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as server:
        yield server


@pytest.fixture
async def stopped_kafka(stoppable: EmbeddedKafka) -> AsyncIterator[EmbeddedKafka]:
    """A broker that tests may stop; it goes on afterwards, with a topic `there`."""
    admin = KafkaAdmin(KafkaConnection(brokers=[stoppable.bootstrap_servers]), client_id="tests")
    await admin.create_topic("there", partitions=1)
    await admin.close()
    yield stoppable
    os.kill(stoppable.pid, signal.SIGCONT)


def read_all(kafka: EmbeddedKafka, topic: str, count: int) -> list[Any]:
    """Read `count` records of a topic with nothing of ours in between."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "unused", "enable.auto.commit": False}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    deadline = time.monotonic() + 20
    messages: list[Any] = []
    while len(messages) < count and time.monotonic() < deadline:
        messages += consumer.consume(count, timeout=0.5)
    consumer.close()
    return messages


async def watch_loop(stalls: list[float]) -> None:
    """Note how late the event loop wakes a task that sleeps 5 ms."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.005)
        stalls.append(time.monotonic() - before - 0.005)


async def test_a_record_is_acknowledged_with_partition_and_offset(producer: RecordProducer, topic: str) -> None:
    first = await producer.send(topic, b"ada", b"1", [("traceparent", b"x")])
    second = await producer.send(topic, b"ada", b"2", [])
    assert first.offset == 0
    assert second == Stored(first.partition, 1)


async def test_key_value_and_headers_arrive_as_they_were_sent(
    producer: RecordProducer, kafka: EmbeddedKafka, topic: str
) -> None:
    await producer.send(topic, "ключ".encode(), b'{"a":1}', [("h", b"\x00\xff"), ("h", b"again"), ("none", None)])
    (message,) = await asyncio.to_thread(read_all, kafka, topic, 1)
    assert (message.key(), message.value()) == ("ключ".encode(), b'{"a":1}')
    assert message.headers() == [("h", b"\x00\xff"), ("h", b"again"), ("none", None)]


def check_order(messages: list[Any], *, expected: int) -> None:
    by_key: dict[bytes, list[int]] = {}
    for message in messages:
        by_key.setdefault(message.key(), []).append(int(message.value()))
    assert sum(map(len, by_key.values())) == expected
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


async def test_records_of_one_key_keep_their_order(producer: RecordProducer, kafka: EmbeddedKafka, topic: str) -> None:
    sends = [producer.send(topic, b"k%d" % (number % 7), b"%d" % number, []) for number in range(2_000)]
    await asyncio.gather(*sends)
    check_order(await asyncio.to_thread(read_all, kafka, topic, 2_000), expected=2_000)


async def test_many_that_are_sent_together_are_stored_in_their_order(
    producer: RecordProducer, kafka: EmbeddedKafka, topic: str
) -> None:
    sends = producer.send_all(topic, [(b"k%d" % (number % 7), b"%d" % number, []) for number in range(500)])
    sends += producer.send_all(topic, [(b"k", b"%d" % number, [("h", b"x")]) for number in range(2)])
    first, second = (await asyncio.gather(*sends))[-2:]
    assert second == Stored(first.partition, first.offset + 1)
    check_order(await asyncio.to_thread(read_all, kafka, topic, 502), expected=502)
    assert producer.send_all(topic, []) == []


async def test_of_many_that_do_not_fit_together_none_is_sent() -> None:
    settings = settings_for(NOBODY_LISTENS, queue_max_messages=10, queue_max_kbytes=8, delivery_timeout_seconds=1)
    producer = RecordProducer(settings, client_id="tests")
    await producer.start()
    with pytest.raises(QueueFull):
        producer.send_all("t", [(b"k", b"v", [])] * 11)
    with pytest.raises(QueueFull):
        producer.send_all("t", [(b"k", b"x" * 3_000, [])] * 3)
    with pytest.raises(RecordRejected):
        producer.send_all("t", [(b"k", b"v", []), (b"k", b"x" * 1_100_000, [])])
    assert producer.in_flight == producer.in_flight_bytes == 0
    assert len(producer.send_all("t", [(b"k", b"v", [])] * 10)) == producer.in_flight == 10
    await producer.close(0)


async def test_the_partitioner_is_the_one_of_java_clients(producer: RecordProducer, admin: KafkaAdmin) -> None:
    """Kafka's own UtilsTest says murmur2("21") is -973932308 and murmur2("foobar") is -790332482."""
    name = f"partitioner-{time.monotonic_ns()}"
    await admin.create_topic(name, partitions=12)
    for key, murmur2 in ((b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)):
        stored = await producer.send(name, key, b"x", [])
        assert stored.partition == (murmur2 & 0x7FFFFFFF) % 12


async def test_a_missing_topic_is_named_long_before_the_deadline(kafka: EmbeddedKafka) -> None:
    producer = RecordProducer(settings_for(kafka.bootstrap_servers, delivery_timeout_seconds=30), client_id="tests")
    await producer.start()
    started = time.monotonic()
    with pytest.raises(TopicMissing) as caught:
        await producer.send("nobody-made-this", b"k", b"v", [])
    assert "create the topic" in caught.value.advice
    assert time.monotonic() - started < 10
    await producer.close(1)


async def test_a_record_larger_than_allowed_is_rejected_at_once(producer: RecordProducer, topic: str) -> None:
    with pytest.raises(RecordRejected):
        producer.send(topic, b"k", b"x" * 1_100_000, [])
    assert producer.in_flight == 0


async def test_a_full_queue_refuses_at_once_and_forgets_nothing_it_took() -> None:
    settings = settings_for(NOBODY_LISTENS, queue_max_messages=10, delivery_timeout_seconds=1)
    producer = RecordProducer(settings, client_id="tests")
    await producer.start()
    taken = [producer.send("t", b"k", b"v", []) for _ in range(10)]
    with pytest.raises(QueueFull) as caught:
        producer.send("t", b"k", b"v", [])
    assert caught.value.retriable
    assert producer.in_flight == 10
    results = await asyncio.gather(*taken, return_exceptions=True)
    assert {type(result) for result in results} == {KafkaUnavailable}
    assert await producer.close(1) == 0


async def test_bytes_fill_the_queue_too() -> None:
    settings = settings_for(NOBODY_LISTENS, queue_max_kbytes=8, delivery_timeout_seconds=1)
    producer = RecordProducer(settings, client_id="tests")
    await producer.start()
    taken = producer.send("t", b"k", b"x" * 6_000, [])
    with pytest.raises(QueueFull):
        producer.send("t", b"k", b"x" * 6_000, [])
    assert producer.in_flight == 1
    with pytest.raises(KafkaUnavailable):
        await taken
    await producer.close(1)


async def test_what_is_wrong_with_one_record_is_told_its_sender_alone(producer: RecordProducer, topic: str) -> None:
    """Several wait together until the loop has time, and librdkafka judges them one by one."""
    await producer.send(topic, b"k", b"warm", [])
    sends = [
        producer.send(topic, b"k", b"1", []),
        producer.send(topic, b"k", b"2", [("h", b"x" * 1_100_000)]),
        producer.send(topic, b"k", b"3", [("h", 3)]),  # type: ignore[list-item]
        producer.send(topic, b"k", b"4", [], partition=99),
        producer.send(topic, b"k", b"5", []),
    ]
    first, too_large, mistaken, nowhere, last = await asyncio.gather(*sends, return_exceptions=True)
    assert isinstance(too_large, RecordRejected)
    assert isinstance(mistaken, TypeError)
    assert isinstance(nowhere, KafkaFailure)
    assert isinstance(first, Stored)
    assert isinstance(last, Stored)
    assert last == Stored(first.partition, first.offset + 1)
    assert producer.in_flight == producer.in_flight_bytes == 0


async def test_under_load_every_record_is_stored_in_order_although_it_waits_for_company(
    producer: RecordProducer, kafka: EmbeddedKafka, topic: str
) -> None:
    async def send_in_turn(key: bytes) -> list[int]:
        return [(await producer.send(topic, key, b"%d" % number, [])).offset for number in range(60)]

    offsets = await asyncio.gather(*(send_in_turn(b"k%d" % number) for number in range(50)))
    assert all(each == sorted(each) for each in offsets)
    messages = await asyncio.to_thread(read_all, kafka, topic, 3_000)
    assert len({(message.key(), message.value()) for message in messages}) == len(messages) == 3_000


async def test_many_reports_at_once_leave_the_loop_room_between_them(producer: RecordProducer, topic: str) -> None:
    await producer.send(topic, b"first", b"")
    rounds, is_done = 0, False

    def go_round() -> None:
        nonlocal rounds
        rounds += 1
        if not is_done:
            asyncio.get_running_loop().call_soon(go_round)

    records = producer.send_all(topic, [(b"ada", b"", ())] * 5_000)
    settled_in: list[int] = []
    for record in records:
        record.call_when_settled(lambda _: settled_in.append(rounds))
    time.sleep(2)  # noqa: ASYNC251 - a loop that is held up, while the broker answers for all of them
    go_round()
    offsets = [stored.offset for stored in await asyncio.gather(*records)]
    is_done = True
    assert max(Counter(settled_in).values()) == REPORTS_PER_TURN
    assert offsets == sorted(offsets)
    assert producer.in_flight == 0


async def test_after_a_full_queue_empties_sending_works_without_a_restart(kafka: EmbeddedKafka, topic: str) -> None:
    producer = RecordProducer(settings_for(kafka.bootstrap_servers, queue_max_messages=5), client_id="tests")
    await producer.start()
    taken = [producer.send(topic, b"k", b"v", []) for _ in range(5)]
    with pytest.raises(QueueFull):
        producer.send(topic, b"k", b"v", [])
    await asyncio.gather(*taken)
    assert (await producer.send(topic, b"k", b"v", [])).offset == 5
    await producer.close(5)


async def test_with_no_broker_ever_reached_a_record_is_unavailable_not_unknown() -> None:
    producer = RecordProducer(settings_for(NOBODY_LISTENS, delivery_timeout_seconds=1), client_id="tests")
    await producer.start()
    started = time.monotonic()
    with pytest.raises(KafkaUnavailable) as caught:
        await producer.send("t", b"k", b"v", [])
    assert "127.0.0.1:1" in str(caught.value)
    assert "kafka.brokers" in caught.value.advice
    assert time.monotonic() - started < 4
    assert isinstance(producer.connection_failure, KafkaUnavailable)
    assert producer.is_healthy, "a broker that is away is no reason to restart"
    await producer.close(1)


async def test_a_stalled_broker_makes_outcomes_unknown_within_the_deadline_while_the_loop_runs(
    stopped_kafka: EmbeddedKafka,
) -> None:
    settings = settings_for(stopped_kafka.bootstrap_servers, delivery_timeout_seconds=2)
    producer = RecordProducer(settings, client_id="tests")
    await producer.start()
    await producer.send("there", b"k", b"before", [])
    stalls: list[float] = []
    watch = asyncio.create_task(watch_loop(stalls))
    os.kill(stopped_kafka.pid, signal.SIGSTOP)
    started = time.monotonic()
    sends = [producer.send("there", b"k", b"%d" % number, []) for number in range(500)]
    await asyncio.sleep(0.3)
    assert 0.2 < producer.oldest_in_flight_seconds < 1.5
    results = await asyncio.gather(*sends, return_exceptions=True)
    elapsed = time.monotonic() - started
    watch.cancel()
    assert {type(result) for result in results} == {OutcomeUnknown}
    assert elapsed < 5
    assert max(stalls) < LONGEST_ACCEPTABLE_STALL_SECONDS
    os.kill(stopped_kafka.pid, signal.SIGCONT)
    assert (await producer.send("there", b"k", b"after", [])).partition == 0
    assert producer.oldest_in_flight_seconds == 0
    await producer.close(5)


async def test_a_broker_that_pauses_shorter_than_the_deadline_costs_nothing(stopped_kafka: EmbeddedKafka) -> None:
    producer = RecordProducer(settings_for(stopped_kafka.bootstrap_servers), client_id="tests")
    await producer.start()
    await producer.send("there", b"k", b"before", [])
    os.kill(stopped_kafka.pid, signal.SIGSTOP)
    sends = [producer.send("there", b"k", b"%d" % number, []) for number in range(100)]
    asyncio.get_running_loop().call_later(1.5, os.kill, stopped_kafka.pid, signal.SIGCONT)
    stored = await asyncio.gather(*sends)
    assert [each.offset for each in stored] == sorted(each.offset for each in stored)
    await producer.close(5)


async def test_a_client_that_has_lost_its_brokers_fails_what_it_holds_and_gives_way_to_a_new_one(
    stopped_kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin_core.client_statistics.LOST_SECONDS", 0.0)
    producer = RecordProducer(
        settings_for(stopped_kafka.bootstrap_servers, delivery_timeout_seconds=300), client_id="tests"
    )
    await producer.start()
    assert isinstance(await producer.send("there", None, b"before"), Stored)
    os.kill(stopped_kafka.pid, signal.SIGSTOP)
    held = [producer.send("there", None, b"%d" % number) for number in range(3 * REPORTS_PER_TURN)]
    producer._hand_over()
    lost = producer._producer
    producer._on_statistics('{"brokers": {"internal": {"state": "UP", "source": "internal"}}}')
    async with asyncio.timeout(30):  # by their deadline it would be five minutes
        found = await asyncio.gather(*held, return_exceptions=True)
    assert {type(each) for each in found} <= {KafkaUnavailable, OutcomeUnknown}
    os.kill(stopped_kafka.pid, signal.SIGCONT)
    assert isinstance(await producer.send("there", None, b"after"), Stored)
    assert producer._producer is not lost
    assert (producer._given_up, producer.in_flight, producer.in_flight_bytes) == (None, 0, 0)
    await producer.close(5)


async def test_close_delivers_what_was_taken(kafka: EmbeddedKafka, topic: str) -> None:
    producer = RecordProducer(settings_for(kafka.bootstrap_servers), client_id="tests")
    await producer.start()
    sends = [producer.send(topic, b"%d" % number, b"v", []) for number in range(1_000)]
    threads: set[int] = set()
    for each in sends:
        each.call_when_settled(lambda _: threads.add(threading.get_ident()))
    assert await producer.close(10) == 0
    assert threads == {threading.get_ident()}, "who listens never has to fear another thread"
    assert all(isinstance(each.outcome, Stored) for each in sends)


async def test_records_are_settled_while_the_producer_still_closes(stopped_kafka: EmbeddedKafka) -> None:
    """Whoever waits for one of them while it closes, an HTTP request say, is answered at once, not at the end."""
    first = RecordProducer(settings_for(stopped_kafka.bootstrap_servers), client_id="first")
    await first.start()
    await first.send("there", b"k", b"the first record of a new broker takes longer than a second", [])
    await first.close(10)
    producer = RecordProducer(settings_for(stopped_kafka.bootstrap_servers, delivery_timeout_seconds=1), client_id="t")
    await producer.start()
    await producer.send("there", b"k", b"before", [])
    os.kill(stopped_kafka.pid, signal.SIGSTOP)
    send = producer.send("there", b"k", b"v", [])
    closing = asyncio.create_task(producer.close(30))
    with pytest.raises(OutcomeUnknown):
        await send
    assert await closing == 0


async def test_close_says_how_many_it_could_not_deliver_and_fails_them(stopped_kafka: EmbeddedKafka) -> None:
    producer = RecordProducer(settings_for(stopped_kafka.bootstrap_servers), client_id="tests")
    await producer.start()
    await producer.send("there", b"k", b"before", [])
    os.kill(stopped_kafka.pid, signal.SIGSTOP)
    sends = [producer.send("there", b"k", b"v", []) for _ in range(20)]
    started = time.monotonic()
    assert await producer.close(0.5) == 20
    assert time.monotonic() - started < 5
    assert all(isinstance(each.outcome, KafkaFailure) and each.outcome.retriable for each in sends)


async def test_a_closed_producer_refuses(kafka: EmbeddedKafka) -> None:
    producer = RecordProducer(settings_for(kafka.bootstrap_servers), client_id="tests")
    await producer.start()
    await producer.close(1)
    with pytest.raises(KafkaUnavailable):
        producer.send("t", b"k", b"v", [])
    assert await producer.close(1) == 0


async def test_a_caller_that_goes_away_disturbs_nobody(producer: RecordProducer, topic: str) -> None:
    first = producer.send(topic, b"k", b"1", [])
    gone, patient = asyncio.ensure_future(first), asyncio.ensure_future(first)
    await asyncio.sleep(0)
    gone.cancel()
    assert (await producer.send(topic, b"k", b"2", [])).offset == 1
    assert (await patient).offset == 0
    assert gone.cancelled()
    assert producer.in_flight == 0


async def test_without_return_successes_a_record_is_settled_on_return_and_the_record_still_arrives(
    kafka: EmbeddedKafka, topic: str
) -> None:
    settings = settings_for(kafka.bootstrap_servers, producer_return_successes=False)
    producer = RecordProducer(settings, client_id="tests")
    await producer.start()
    assert producer.send(topic, b"k", b"v", []).outcome == Stored(-1, -1)
    assert producer.in_flight == 1
    assert await producer.close(10) == 0
    assert len(await asyncio.to_thread(read_all, kafka, topic, 1)) == 1


async def test_without_retries_a_record_is_still_stored(kafka: EmbeddedKafka, topic: str) -> None:
    producer = RecordProducer(settings_for(kafka.bootstrap_servers, retries=0), client_id="tests")
    await producer.start()
    assert (await producer.send(topic, b"k", b"v", [])).offset == 0
    await producer.close(5)


async def test_a_single_record_is_acknowledged_without_waiting_for_company(
    producer: RecordProducer, topic: str
) -> None:
    await producer.send(topic, b"k", b"warm", [])
    took = []
    for _ in range(20):
        started = time.monotonic()
        await producer.send(topic, b"k", b"v", [])
        took.append(time.monotonic() - started)
    assert sorted(took)[len(took) // 2] < 0.1
