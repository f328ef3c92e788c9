"""Several consumers of one group on a real broker: hand-overs, orderly ends and crashes, under both group protocols."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest
from confluent_kafka import Consumer

from receiver import Answer, Delivery, Receiver
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_core.admin import KafkaAdmin
from tocsin_core.consumer_config import GroupProtocol, build_consumer_config
from tocsin_core.retry import build_tiers
from tocsin_core.settings import KafkaSettings
from world import ConsumerProcess, World, notifications, webhook

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def classic_kafka() -> Iterator[EmbeddedKafka]:
    """A broker that knows no `group.protocol=consumer`, as all did before Kafka 4."""
    with EmbeddedKafka(properties={"group.coordinator.rebalance.protocols": "classic"}) as server:
        yield server


@pytest.fixture
async def classic_world(classic_kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[World]:
    world = await World(classic_kafka.bootstrap_servers, tmp_path).create()
    yield world
    await world.close()


@pytest.fixture
async def modern_world(kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[World]:
    world = await World(kafka.bootstrap_servers, tmp_path).create()
    yield world
    await world.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(Answer(delay_seconds=0.01)) as server:
        yield server


@pytest.fixture(params=["modern_world", "classic_world"])
def world(request: pytest.FixtureRequest) -> World:
    chosen: World = request.getfixturevalue(request.param)
    return chosen


def inversions(deliveries: list[Delivery]) -> int:
    """Count first deliveries to a recipient that came before an earlier one's first."""
    seen: dict[str, list[int]] = defaultdict(list)
    for delivery in sorted(deliveries, key=lambda each: each.came_at):
        number = int(delivery.data["message"])
        if number not in seen[delivery.data["toID"]]:
            seen[delivery.data["toID"]].append(number)
    return sum(order != sorted(order) for order in seen.values())


class Load:
    """Produces at a pace for as long as it is entered; `count` says how many."""

    def __init__(self, world: World, *, batch: int = 40) -> None:
        self.count = 0
        self._world = world
        self._batch = batch

    async def __aenter__(self) -> Self:
        self._is_over = asyncio.Event()
        self._task = asyncio.create_task(self._produce())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over.set()
        await self._task

    async def _produce(self) -> None:
        while not self._is_over.is_set():
            await asyncio.to_thread(self._world.produce, notifications(self._batch, start=self.count))
            self.count += self._batch
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), 0.2)


async def test_joining_and_leaving_loses_and_repeats_nothing(world: World, receiver: Receiver) -> None:
    channels = [webhook(receiver.url)]
    async with Load(world) as load:
        first = await world.start_process(channels, consumer={"concurrency": 8})
        await first.wait_for("notification delivered", count=20)
        second = await world.start_process(channels, consumer={"concurrency": 8})
        await second.wait_for("notification delivered", count=20)
        assert await first.terminate() == 0
    deliveries = await receiver.wait_for(load.count)
    assert await second.terminate() == 0
    assert sorted(receiver.ids) == sorted(f"n{number}" for number in range(load.count))
    assert inversions(deliveries) == 0
    assert world.committed() == load.count


async def test_a_partition_that_rested_when_it_left_is_read_again_when_it_comes_back(
    world: World, receiver: Receiver
) -> None:
    channels = [webhook(receiver.url)]
    receiver.answer = Answer(delay_seconds=0.1)
    world.produce(notifications(3000, recipients=50))  # more than is held in memory, so that every partition rests
    first = await world.start_process(channels, consumer={"concurrency": 4})
    await first.wait_for("notification delivered", count=20)
    second = await world.start_process(channels, consumer={"concurrency": 4})
    await second.wait_for("notification delivered", count=20)
    receiver.answer = Answer()
    assert await second.terminate() == 0
    await receiver.wait_for(3000)
    assert await first.terminate() == 0
    assert len(set(receiver.ids)) == 3000


async def test_a_killed_consumer_loses_nothing(classic_world: World, receiver: Receiver) -> None:
    channels = [webhook(receiver.url)]
    async with Load(classic_world) as load:
        first = await classic_world.start_process(channels, consumer={"concurrency": 8})
        second = await classic_world.start_process(channels, consumer={"concurrency": 8})
        for consumer in (first, second):
            await consumer.wait_for("notification delivered", count=20)
        await first.kill()
    await wait_until_all_came(receiver, load.count)
    assert await second.terminate() == 0
    assert set(receiver.ids) == {f"n{number}" for number in range(load.count)}
    assert inversions(receiver.deliveries) == 0


async def test_with_redis_a_crash_repeats_only_what_was_being_sent_and_counts_it(
    classic_world: World, receiver: Receiver, valkey: EmbeddedValkey
) -> None:
    channels = [webhook(receiver.url, timeout_seconds=1)]
    sections = {"redis": {"url": valkey.url}, "consumer": {"concurrency": 8}}
    classic_world.produce(notifications(400))
    first = await classic_world.start_process(channels, **sections)
    await receiver.wait_for(150)
    await first.kill()
    second = await classic_world.start_process(channels, **sections)
    await wait_until_all_came(receiver, 400)
    port = (await second.wait_for("consumer started"))[0]["health_port"]
    uncertain = (await read_metrics(port)).get('tocsin_uncertain_resends_total{channel="hook"}', 0.0)
    assert await second.terminate() == 0
    assert len(receiver.ids) - 400 <= uncertain <= 8
    assert inversions(receiver.deliveries) == 0


async def test_sigterm_finishes_what_has_started_and_starts_nothing_more(
    modern_world: World, receiver: Receiver
) -> None:
    receiver.answer = Answer(delay_seconds=0.5)
    modern_world.produce(notifications(100))
    consumer = await modern_world.start_process([webhook(receiver.url)], consumer={"concurrency": 4})
    await receiver.wait_for(4)
    assert await consumer.terminate() == 0
    delivered = len(receiver.ids)
    assert delivered < 50
    assert modern_world.committed() == delivered
    receiver.answer = Answer()
    await modern_world.start_process([webhook(receiver.url)])
    await receiver.wait_for(100)
    assert sorted(receiver.ids) == sorted(f"n{number}" for number in range(100))


async def test_a_slow_channel_holds_up_no_other_and_a_restart_resumes_each_where_it_stood(
    world: World, receiver: Receiver
) -> None:
    """More than fits into memory: the slow channel has to read on by itself, and nothing remembers but the commit."""
    receiver.answer = lambda each: Answer(delay_seconds=0.5 if each.path == "/slow" else 0.0)
    base = receiver.url.removesuffix("/hook")
    channels = [webhook(f"{base}/fast", name="fast"), webhook(f"{base}/slow", name="slow")]
    world.produce(notifications(5000, recipients=50))
    first = await world.start_process(channels, consumer={"concurrency": 16})
    await receiver.wait_for_path("/fast", 5000)
    assert len(receiver.on_path("/slow")) < 500
    assert await first.terminate() == 0
    sent_slowly = len(receiver.on_path("/slow"))
    receiver.answer = Answer()
    second = await world.start_process(channels, consumer={"concurrency": 16})
    slow = await receiver.wait_for_path("/slow", 5000)
    assert await second.terminate() == 0
    assert 0 < sent_slowly < 600
    assert len(receiver.on_path("/fast")) == 5000
    assert sorted(each.id for each in slow) == sorted(f"n{number}" for number in range(5000))
    assert inversions(slow) == 0
    assert world.committed() == 5000


async def test_memory_and_counters_while_a_backlog_waits_for_a_slow_provider(
    modern_world: World, receiver: Receiver
) -> None:
    receiver.answer = Answer(delay_seconds=0.1)
    modern_world.produce(notifications(6000, recipients=50))
    consumer = await modern_world.start_process([webhook(receiver.url)], consumer={"concurrency": 10})
    await receiver.wait_for(100)
    metrics = await read_metrics((await consumer.wait_for("consumer started"))[0]["health_port"])
    assert metrics["tocsin_consumer_concurrency"] == 10
    assert 0 < metrics["tocsin_consumer_in_flight"] <= 10
    assert 100 <= metrics["tocsin_consumer_held_records"] <= 1000 + 4 * 500
    seconds_each = metrics["tocsin_consumer_busy_slot_seconds_total"] / metrics["tocsin_consumer_processed_total"]
    assert 0.09 < seconds_each < 0.5
    assert metrics['tocsin_deliveries_total{channel="hook",outcome="delivered"}'] >= 90
    await consumer.kill()


async def test_an_unreachable_broker_is_named_by_readiness_and_the_log(tmp_path: Path, receiver: Receiver) -> None:
    world = World("127.0.0.1:1", tmp_path)
    (tmp_path / "users.yaml").write_text("", encoding="utf-8")
    consumer = await world.start_process([webhook(receiver.url)])
    [line, *_] = await consumer.wait_for("Kafka cannot be reached")
    assert "kafka.brokers" in line["advice"]
    port = (await consumer.wait_for("consumer started"))[0]["health_port"]
    async with httpx.AsyncClient() as client:
        ready = await client.get(f"http://127.0.0.1:{port}/readyz")
        alive = await client.get(f"http://127.0.0.1:{port}/healthz")
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert "check kafka.brokers" in ready.text
    assert await consumer.terminate() == 0


async def test_a_missing_topic_is_named_and_used_once_it_is_there(modern_world: World, receiver: Receiver) -> None:
    modern_world.topic = f"{modern_world.topic}-late"
    consumer: ConsumerProcess = await modern_world.start_process([webhook(receiver.url)])
    [line, *_] = await consumer.wait_for("records cannot be read")
    assert "create the topic" in line["advice"]
    await modern_world.create_topic(modern_world.topic, 4)
    modern_world.produce(notifications(5))
    await receiver.wait_for(5)
    assert await consumer.terminate() == 0


async def wait_until_all_came(receiver: Receiver, count: int) -> None:
    wanted = count
    while len(set(receiver.ids)) < count:
        wanted += count - len(set(receiver.ids)) if len(receiver.deliveries) >= wanted else 0
        await receiver.wait_for(wanted)


async def read_metrics(port: int) -> dict[str, float]:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


@pytest.mark.parametrize("group_protocol", ["consumer", "classic"])
async def test_every_member_gets_its_share_of_the_topic_and_not_only_of_retry_topics(
    kafka: EmbeddedKafka, group_protocol: GroupProtocol
) -> None:
    name = f"shared-{group_protocol}"
    connection = KafkaSettings(brokers=[kafka.bootstrap_servers], topic=name, consumer_group=name)
    topics = [name, *(tier.topic for tier in build_tiers(name))]
    admin = KafkaAdmin(connection, client_id="test")
    for topic in topics:
        await admin.create_topic(topic, partitions=12)
    await admin.close()
    shares = await asyncio.to_thread(settle_members, connection, group_protocol, topics, members=3)
    assert shares == [4, 4, 4]


def settle_members(
    settings: KafkaSettings, group_protocol: GroupProtocol, topics: list[str], *, members: int
) -> list[int]:
    """Let members join one after the other; return how many partitions of the first topic each ends up with."""
    config = build_consumer_config(settings, client_id="test", group_protocol=group_protocol, drain_seconds=1)
    with contextlib.ExitStack() as stack:
        consumers: list[Consumer] = []
        for count in range(1, members + 1):
            consumers.append(Consumer(config))
            stack.callback(consumers[-1].close)
            consumers[-1].subscribe(topics)
            deadline = time.monotonic() + 30
            while (held := [consumer.assignment() for consumer in consumers]) and not (
                sum(map(len, held)) == 12 * len(topics) and {len(each) for each in held} == {48 // count}
            ):
                assert time.monotonic() < deadline, held
                for consumer in consumers:
                    consumer.poll(0.05)
        return [sum(each.topic == topics[0] for each in consumer.assignment()) for consumer in consumers]
