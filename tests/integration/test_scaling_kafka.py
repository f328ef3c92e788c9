"""The scaling loop on a real Kafka: a real group that is too slow is seen, measured and given more pods."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from confluent_kafka import Consumer, Producer

from scaling_ports import Ports
from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import TocsinError
from tocsin_core.settings import KafkaConnection
from tocsin_operator.clock import SteadyClock
from tocsin_operator.scaling.loop import ScalingLoop
from tocsin_operator.scaling.model import Config, Reason
from tocsin_operator.scaling.ports import Target
from tocsin_operator.scaling.report import build_claims

pytestmark = pytest.mark.kafka

RECORDS = 4_000
PACE_PER_SECOND = 50.0
PARTITIONS = 4


def _produce_backlog(kafka_connection: KafkaConnection, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka_connection.brokers[0], "acks": "all"})
    for number in range(RECORDS):
        producer.produce(topic, b"{}", partition=number % PARTITIONS)
    assert producer.flush(30) == 0


@pytest.fixture
def slow_group(kafka_connection: KafkaConnection, topic: str) -> Iterator[str]:
    """A group of one that finishes and commits a record each fiftieth of a second."""
    _produce_backlog(kafka_connection, topic)
    group, stop = f"group-{topic}", threading.Event()
    consumer = Consumer(
        {
            "bootstrap.servers": kafka_connection.brokers[0],
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": True,
            "auto.commit.interval.ms": 200,
            "queued.min.messages": 10,
            "max.partition.fetch.bytes": 300,
        }
    )

    def work() -> None:
        consumer.subscribe([topic])
        while not stop.wait(1 / PACE_PER_SECOND):
            consumer.poll(1.0)
        consumer.close()

    thread = threading.Thread(target=work, name="slow consumer")
    thread.start()
    yield group
    stop.set()
    thread.join(30)


@pytest.fixture
async def ports(admin: KafkaAdmin, topic: str, slow_group: str) -> AsyncIterator[Ports]:
    config = Config(max_lag_seconds=5, interval_seconds=1, cooldown_seconds=5, down_window_seconds=10)
    ports = Ports(admin, Target("ns/slow", "uid", "kafka", slow_group, topic, config))
    loop = ScalingLoop(observer=ports, actor=ports, publisher=ports, clock=SteadyClock())
    running = asyncio.create_task(loop.run())
    yield ports
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_group_that_is_too_slow_is_measured_and_given_more_pods(ports: Ports) -> None:
    async with asyncio.timeout(60):
        report = await ports.reports.get()
        while not report.has_acted or report.decision is None or report.decision.reason is Reason.LAG_GROWING:
            report = await ports.reports.get()
    inputs = report.decision.inputs
    assert report.kafka_failure is None
    assert inputs.partitions == PARTITIONS
    assert inputs.total_lag is not None
    assert 0 < inputs.total_lag <= RECORDS
    assert inputs.capacity_source == "Observed"
    assert inputs.capacity_per_second == pytest.approx(PACE_PER_SECOND, rel=0.5)
    assert ports.wanted == PARTITIONS


async def test_a_broker_that_is_not_there_holds_the_number_and_is_named(topic: str) -> None:
    admin = KafkaAdmin(KafkaConnection(brokers=["127.0.0.1:1"]), client_id="tests", timeout_seconds=1)
    ports = Ports(admin, Target("ns/gone", "uid", "gone", "group", topic, Config()))
    loop = ScalingLoop(observer=ports, actor=ports, publisher=ports, clock=SteadyClock())
    await loop.run_pass()
    report = ports.reports.get_nowait()
    _, reachable, _, _ = build_claims(report)
    assert (reachable.is_true, reachable.reason) == (False, "BrokerUnreachable")
    assert report.decision is not None
    assert (report.decision.replicas, report.decision.is_trusted) == (1, False)
    await admin.close()


async def test_a_topic_that_is_not_there_is_named(admin: KafkaAdmin) -> None:
    ports = Ports(admin, Target("ns/none", "uid", "kafka", "group", "no-such-topic", Config()))
    loop = ScalingLoop(observer=ports, actor=ports, publisher=ports, clock=SteadyClock())
    await loop.run_pass()
    report = ports.reports.get_nowait()
    assert isinstance(report.kafka_failure, TocsinError)
    assert build_claims(report)[1].reason == "TopicMissing"
