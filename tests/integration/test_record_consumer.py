"""One member of a group on a real broker, with a sink that does as the test says."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_core.admin import KafkaAdmin
from tocsin_core.assignment import Assignment, Batch
from tocsin_core.commits import Commit
from tocsin_core.consumer import RecordConsumer
from tocsin_core.settings import KafkaConnection, KafkaSettings

pytestmark = pytest.mark.kafka

PROTOCOLS = pytest.mark.parametrize("protocol", ["consumer", "classic"])


class Held:
    """A sink that takes records and starts none, so that a hand-over has nothing to wait for."""

    def __init__(self) -> None:
        self.taken: dict[int, int] = {}
        """Records taken, by epoch."""
        self._changed = asyncio.Condition()

    def accept(self, batch: Batch) -> None:
        for assignment, _ in batch:
            self.taken[assignment.epoch] = self.taken.get(assignment.epoch, 0) + 1
        self._tell()

    async def drain(self, assignments: Sequence[Assignment], budget_seconds: float) -> None:
        del budget_seconds
        for assignment in assignments:
            assignment.begin_drain()

    async def wait_until(self, is_enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(is_enough)

    def _tell(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._telling = asyncio.create_task(notify())


class Breaking(Held):
    """A sink that takes one record of each batch and then breaks."""

    def accept(self, batch: Batch) -> None:
        assignment, record = batch[0]
        assignment.open(["a"], record.offset)
        for tracker in assignment.cursors.values():
            tracker.skip(record.offset)
        raise ValueError("a defect")


def build_member(
    kafka: EmbeddedKafka, topic: str, sink: Held, protocol: str = "auto", kind: type[RecordConsumer] = RecordConsumer
) -> RecordConsumer:
    settings = KafkaSettings(brokers=[kafka.bootstrap_servers], topic=topic, consumer_group=f"{topic}-group")
    return kind(
        settings,
        sink,
        client_id="tests",
        drain_seconds=2,
        max_held_records=100,
        max_held_bytes=1_000_000_000,
        group_protocol=protocol,  # type: ignore[arg-type]  # one of its three words
    )


def produce(kafka: EmbeddedKafka, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(count):
        producer.produce(topic, b"%d" % number, partition=number % 4)
    assert producer.flush(30) == 0


@PROTOCOLS
async def test_a_partition_that_rested_is_read_again_when_it_comes_back(
    kafka: EmbeddedKafka, topic: str, protocol: str
) -> None:
    produce(kafka, topic, 1_200)
    staying, passing = Held(), Held()
    first = build_member(kafka, topic, staying, protocol)
    await first.start()
    await staying.wait_until(lambda: len(staying.taken) == 4 and min(staying.taken.values()) >= 100)
    second = build_member(kafka, topic, passing, protocol)
    await second.start()
    await passing.wait_until(lambda: len(passing.taken) == 2)
    await second.stop()
    await staying.wait_until(lambda: len(staying.taken) == 6)
    await first.stop()


async def test_a_sink_that_breaks_ends_the_member_and_nothing_is_committed_past_what_it_lost(
    kafka: EmbeddedKafka, topic: str, admin: KafkaAdmin
) -> None:
    produce(kafka, topic, 400)
    member = build_member(kafka, topic, Breaking())
    await member.start()
    assert member.ended is not None
    with pytest.raises(ValueError, match="a defect"):
        await asyncio.wait_for(member.ended, 60)
    offsets = await admin.observe_group(f"{topic}-group", topic)
    assert all(each.committed in (None, 1) for each in offsets)


async def test_a_member_is_in_trouble_until_a_broker_has_answered(kafka: EmbeddedKafka, topic: str) -> None:
    produce(kafka, topic, 4)
    sink = Held()
    member = build_member(kafka, topic, sink)
    assert "no broker has answered yet" in str(member.trouble)
    await member.start()
    await sink.wait_until(lambda: bool(sink.taken))
    assert member.trouble is None
    await member.stop()


class Rereading(RecordConsumer):
    """A member whose client, once, reads on from the beginning."""

    has_stepped_back = False

    def _apply_pressure(self, consumer: Consumer) -> None:
        super()._apply_pressure(consumer)
        taken = [each for each in self._assignments.values() if each.next_offset > 0]
        if len(taken) == 4 and not self.has_stepped_back:
            self.has_stepped_back = True
            for each in taken:
                consumer.seek(TopicPartition(each.topic, each.partition, 0))


@PROTOCOLS
async def test_what_the_client_reads_twice_is_taken_once(kafka: EmbeddedKafka, topic: str, protocol: str) -> None:
    produce(kafka, topic, 40)
    sink = Held()
    member = build_member(kafka, topic, sink, protocol, kind=Rereading)
    await member.start()
    await sink.wait_until(lambda: sum(sink.taken.values()) == 40)
    produce(kafka, topic, 4)
    await sink.wait_until(lambda: sum(sink.taken.values()) >= 44)
    assert sorted(sink.taken.values()) == [11, 11, 11, 11]
    await member.stop()


@PROTOCOLS
async def test_a_member_waits_for_word_of_where_its_group_stands(
    topic: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(RecordConsumer):
        """A member whose broker hangs, once, when it is given partitions."""

        is_sound = True

        def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
            if partitions and self.is_sound:
                self.is_sound = False
                os.kill(own.pid, signal.SIGSTOP)
                threading.Timer(6.0, os.kill, (own.pid, signal.SIGCONT)).start()
            super()._on_assign(consumer, partitions)

    monkeypatch.setattr("tocsin_core.consumer.RESUME_TIMEOUT_SECONDS", 0.3)
    with EmbeddedKafka() as own:
        admin = KafkaAdmin(KafkaConnection(brokers=[own.bootstrap_servers]), client_id="tests")
        await admin.create_topic(topic, partitions=4)
        await admin.close()
        produce(own, topic, 40)
        sink = Held()
        member = build_member(own, topic, sink, protocol, kind=Interrupted)
        await member.start()
        await sink.wait_until(lambda: sum(sink.taken.values()) == 40)
        await member.stop()


async def test_partitions_that_come_while_a_member_leaves_are_not_asked_about(kafka: EmbeddedKafka, topic: str) -> None:
    class Silent:
        """A Kafka client whose broker has gone."""

        def committed(self, *_: object) -> None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    member = build_member(kafka, topic, Held())
    member._is_stopping.set()
    member._on_assign(Silent(), [TopicPartition(topic, 0)])  # type: ignore[arg-type]  # asked for one method
    assert member._assignments == {}


async def test_an_offset_that_is_refused_is_asked_for_again_and_not_taken_for_the_logs_beginning(
    kafka: EmbeddedKafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        """A Kafka client whose coordinator knows, at first, nothing of one of two partitions."""

        def __init__(self) -> None:
            self.refusals = 2
            self.begins: list[TopicPartition] = []

        def committed(self, partitions: list[TopicPartition], _: float) -> list[SimpleNamespace]:
            self.refusals -= 1
            error = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS) if self.refusals >= 0 else None
            return [
                SimpleNamespace(
                    topic=each.topic,
                    partition=each.partition,
                    offset=OFFSET_INVALID if error and each.partition else 40,
                    metadata="",
                    error=error if each.partition else None,
                )
                for each in partitions
            ]

        def resume(self, _: list[TopicPartition]) -> None:
            """Nothing rests."""

        def incremental_assign(self, partitions: list[TopicPartition]) -> None:
            self.begins = partitions

    monkeypatch.setattr("tocsin_core.consumer.RESUME_AGAIN_SECONDS", 0.0)
    client: Any = Refusing()
    member = build_member(kafka, topic, Held())
    member._client = client
    member._on_assign(client, [TopicPartition(topic, 0), TopicPartition(topic, 1)])
    assert [(each.partition, each.offset) for each in client.begins] == [(0, 40), (1, 40)]
    assert [each.committed for each in member._assignments.values()] == [Commit(40), Commit(40)]


NO_BROKER = '{"brokers": {"GroupCoordinator": {"state": "INIT", "source": "logical"}}}'


class Lost(RecordConsumer):
    """A member whose first client, once it has partitions, says that it knows no broker any more."""

    clients = 0

    def _open(self) -> Consumer:
        self.clients += 1
        return super()._open()

    def _on_statistics(self, text: str) -> None:
        is_lost = self.clients == 1 and self._assignments
        super()._on_statistics(NO_BROKER if is_lost else text)


@PROTOCOLS
async def test_a_member_whose_client_has_lost_all_brokers_goes_on_with_a_new_one(
    kafka: EmbeddedKafka, topic: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin_core.client_statistics.LOST_SECONDS", 1.0)
    produce(kafka, topic, 40)
    sink = Held()
    member = build_member(kafka, topic, sink, protocol, kind=Lost)
    await member.start()
    await sink.wait_until(lambda: sum(sink.taken.values()) == 80)  # nothing was committed: the second reads all again
    assert isinstance(member, Lost)
    assert member.clients == 2
    produce(kafka, topic, 4)
    await sink.wait_until(lambda: sum(sink.taken.values()) == 84)
    await member.stop()


def test_a_client_that_does_not_come_back_from_leaving_is_left_to_itself(
    kafka: EmbeddedKafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck:
        """A Kafka client that waits for a coordinator for ever."""

        def __init__(self) -> None:
            self.release = threading.Event()

        def close(self) -> None:
            self.release.wait()

    monkeypatch.setattr("tocsin_core.consumer.CLOSE_SECONDS", 0.1)
    client = Stuck()
    leaving = threading.Thread(target=build_member(kafka, topic, Held())._close, args=(client,), daemon=True)
    leaving.start()
    leaving.join(30)
    assert not leaving.is_alive()
    client.release.set()
