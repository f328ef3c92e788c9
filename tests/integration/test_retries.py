"""Retry topics, order and outages, with the consumer service on a real broker and a real store."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver import Answer, Delivery, Receiver
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_consumer.gate import CLOSED, OPENED
from tocsin_core.breaker import FAILURES_IN_A_ROW
from tocsin_core.retry_record import parse_retry_record
from world import World, notifications, webhook

pytestmark = pytest.mark.kafka

DOWN = Answer(503)


@pytest.fixture
async def world(kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[World]:
    world = await World(kafka.bootstrap_servers, tmp_path).create()
    await world.create_retry_topics(1, 2, 3)
    yield world
    await world.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


class Moods:
    """Answers each notification with its own sequence of answers, then with 200, and counts the requests."""

    def __init__(self, **moods: list[int]) -> None:
        self._moods = {name: iter(answers) for name, answers in moods.items()}
        self.requests: Counter[str] = Counter()
        self.came_at: dict[str, list[float]] = {}

    def __call__(self, delivery: Delivery) -> Answer:
        self.requests[delivery.id] += 1
        self.came_at.setdefault(delivery.id, []).append(time.monotonic())
        return Answer(next(self._moods.get(delivery.id, iter(())), 200))


async def test_what_fails_is_retried_from_one_tier_after_the_other_and_overtaken_meanwhile(
    world: World, receiver: Receiver
) -> None:
    receiver.answer = moods = Moods(n0=[503, 503, 503, 503])
    world.produce(notifications(3, recipients=1))
    async with world.consuming([webhook(receiver.url)]):
        await receiver.wait_for(3)
    assert receiver.ids == ["n1", "n2", "n0"]
    assert moods.requests["n0"] == 5
    first, second, third, fourth, fifth = moods.came_at["n0"]
    assert second - first < 1.0
    assert third - second >= 1.0
    assert fourth - third >= 2.0
    assert fifth - fourth >= 3.0
    assert world.committed() == 3


async def test_the_last_tier_is_followed_by_the_dead_letter_topic_byte_for_byte(
    world: World, receiver: Receiver
) -> None:
    receiver.answer = lambda each: DOWN if each.id == "n0" else Answer()
    [bad] = notifications(1)
    world.produce([bad])
    [original] = await world.read_topic(world.topic, 1)
    async with world.consuming([webhook(receiver.url)]):
        [letter] = await world.read_dead_letters(1)
    assert (letter.key, letter.value) == (original.key, original.value)
    kept = [header for header in letter.headers if not header[0].startswith("dlq-")]
    assert kept == list(original.headers)
    told = {name: letter.header(f"dlq-original-{name}") for name in ("topic", "partition", "offset", "timestamp")}
    assert told == {
        "topic": world.topic.encode(),
        "partition": str(original.partition).encode(),
        "offset": str(original.offset).encode(),
        "timestamp": str(original.timestamp_ms).encode(),
    }
    assert (letter.header("dlq-attempts"), letter.header("dlq-reason")) == (b"5", b"retries_exhausted")
    assert (letter.header("dlq-first-failed-at") or b"") < (letter.header("dlq-last-failed-at") or b"")


async def test_a_restart_forgets_no_deferred_notification_nor_what_it_has_tried(
    world: World, receiver: Receiver
) -> None:
    receiver.answer = moods = Moods(n0=[503] * 4)
    world.produce(notifications(1))
    channels = [webhook(receiver.url)]
    first = await world.start_process(channels)
    await first.wait_for("notification deferred", count=1)
    assert await first.terminate() == 0
    [record] = await world.read_topic(world.tiers[0].topic, 1)
    assert parse_retry_record(record).deferral.attempts == 2
    second = await world.start_process(channels)
    await receiver.wait_for(1)
    assert await second.terminate() == 0
    assert moods.requests["n0"] == 5


async def test_a_record_of_a_foreign_producer_in_a_retry_topic_ends_as_a_dead_letter(
    world: World, receiver: Receiver
) -> None:
    async with world.consuming([webhook(receiver.url)]):
        world.produce_raw(b"whoever wrote this", b"2", [("x", b"y")], topic=world.tiers[1].topic)
        [letter] = await world.read_dead_letters(1)
        world.produce(notifications(1))
        await receiver.wait_for(1)
    assert (letter.value, letter.header("x")) == (b"whoever wrote this", b"y")
    assert letter.header("dlq-reason") == b"malformed_retry"
    assert letter.header("dlq-original-topic") == world.tiers[1].topic.encode()


async def test_strict_order_lets_nothing_overtake_and_other_recipients_go_on(
    world: World, receiver: Receiver, valkey: EmbeddedValkey
) -> None:
    receiver.answer = Moods(n0=[503] * 3)
    world.produce(notifications(20, recipients=2))
    sections: dict[str, Any] = {"redis": {"url": valkey.url}, "delivery": {"ordering": "Strict"}}
    async with world.consuming([webhook(receiver.url)], **sections):
        await receiver.wait_for(20)
    assert [each for each in receiver.ids if int(each[1:]) % 2 == 0] == [f"n{number}" for number in range(0, 20, 2)]
    assert receiver.ids[:10] == [f"n{number}" for number in range(1, 20, 2)]
    assert world.committed() == 20


async def test_strict_order_survives_a_restart_while_notifications_wait(
    world: World, receiver: Receiver, valkey: EmbeddedValkey
) -> None:
    receiver.answer = Moods(n0=[503] * 4, n3=[503] * 3)
    world.produce(notifications(8, recipients=1))
    sections: dict[str, Any] = {"redis": {"url": valkey.url}, "delivery": {"ordering": "Strict"}}
    first = await world.start_process([webhook(receiver.url)], **sections)
    await first.wait_for("notification deferred", count=2)
    assert await first.terminate() == 0
    second = await world.start_process([webhook(receiver.url)], **sections)
    await receiver.wait_for(8)
    assert await second.terminate() == 0
    assert receiver.ids == [f"n{number}" for number in range(8)]


async def test_a_busy_recipient_is_on_time_again_after_a_deferral(
    world: World, receiver: Receiver, valkey: EmbeddedValkey
) -> None:
    """While notifications come faster than tiers let them go, each would find somebody before it, for ever."""
    receiver.answer = Moods(n0=[503] * 3)
    sections: dict[str, Any] = {"redis": {"url": valkey.url}, "delivery": {"ordering": "Strict"}}
    async with world.consuming([webhook(receiver.url)], **sections):
        for number in range(60):
            world.produce(notifications(1, recipients=1, start=number))
            await asyncio.sleep(0.1)
        produced_at = time.monotonic()
        world.produce(notifications(1, recipients=1, start=60))
        deliveries = await receiver.wait_for(61)
    last = max(deliveries, key=lambda each: each.came_at)
    assert receiver.ids == [f"n{number}" for number in range(61)]
    assert last.came_at - produced_at < 1.0


async def test_an_outage_is_a_pause_with_few_requests_and_no_dead_letters(world: World, receiver: Receiver) -> None:
    requests: list[float] = []
    is_down = True

    def answer(_: Delivery) -> Answer:
        requests.append(time.monotonic())
        return DOWN if is_down else Answer()

    receiver.answer = answer
    world.produce(notifications(300))
    consumer = await world.start_process([webhook(receiver.url)], consumer={"concurrency": 4})
    await consumer.wait_for(OPENED)
    began = time.monotonic()
    while time.monotonic() - began < 8:
        world.produce(notifications(10, start=300 + 10 * int(time.monotonic() - began)))
        await asyncio.sleep(1)
    during = [each for each in requests if each > began + 0.5]
    in_flight = 4
    assert len(requests) <= FAILURES_IN_A_ROW + in_flight + 6
    assert 1 <= len(during) <= 6
    is_down = False
    await receiver.wait_for(380)
    await consumer.wait_for(CLOSED)
    assert await consumer.terminate() == 0
    assert len(receiver.ids) == len(set(receiver.ids)) == 380
    assert not [line for line in consumer.lines if line["event"] == "notification dead-lettered"]
    assert world.committed() == 380


async def test_an_outage_of_one_channel_does_not_touch_another(world: World, receiver: Receiver) -> None:
    with Receiver(DOWN) as broken:
        world.produce(notifications(100))
        async with world.consuming([webhook(broken.url, "broken"), webhook(receiver.url, "sound")]):
            await receiver.wait_for(100)
            broken.answer = Answer()
            await broken.wait_for(100)
    assert world.committed() == 100


async def test_a_throttle_is_obeyed(world: World, receiver: Receiver) -> None:
    moments: list[float] = []

    def answer(_: Delivery) -> Answer:
        moments.append(time.monotonic())
        return Answer(429, {"retry-after": "3"}) if len(moments) == 1 else Answer()

    receiver.answer = answer
    world.produce(notifications(1))
    async with world.consuming([webhook(receiver.url)]):
        await receiver.wait_for(1)
    assert moments[1] - moments[0] >= 3.0


async def test_a_hand_over_during_an_outage_is_quick_and_loses_no_order(
    world: World, receiver: Receiver, valkey: EmbeddedValkey
) -> None:
    receiver.answer = DOWN
    world.produce(notifications(40, recipients=8))
    sections: dict[str, Any] = {"redis": {"url": valkey.url}, "delivery": {"ordering": "Strict"}}
    first = await world.start_process([webhook(receiver.url)], **sections)
    await first.wait_for(OPENED)
    began = time.monotonic()
    assert await first.terminate() == 0
    assert time.monotonic() - began < 5.0
    receiver.answer = Answer()
    second = await world.start_process([webhook(receiver.url)], **sections)
    await receiver.wait_for(40)
    assert await second.terminate() == 0
    assert sorted(receiver.ids) == sorted(f"n{number}" for number in range(40))
    for recipient in range(8):
        numbers = [int(each[1:]) for each in receiver.ids if int(each[1:]) % 8 == recipient]
        assert numbers == sorted(numbers)


async def test_without_retry_topics_the_lane_retries_and_one_line_says_what_to_create(
    kafka: EmbeddedKafka, tmp_path: Path, receiver: Receiver
) -> None:
    world = await World(kafka.bootstrap_servers, tmp_path).create()
    receiver.answer = moods = Moods(n0=[503] * 3)
    world.produce(notifications(1))
    consumer = await world.start_process([webhook(receiver.url)])
    await receiver.wait_for(1)
    assert await consumer.terminate() == 0
    assert moods.requests["n0"] == 4
    [line] = await consumer.wait_for(
        "retry topics cannot be used: retries wait in their lanes, and hold up what is behind them"
    )
    assert f"create {world.topic}.retry.10m, {world.topic}.retry.10s, {world.topic}.retry.1m" in line["advice"]
    assert world.committed() == 1
    await world.close()


async def test_retry_topics_that_are_made_later_are_read_without_a_restart(
    kafka: EmbeddedKafka, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin_consumer.retry_topics.LOOK_AGAIN_SECONDS", 0.2)
    world = await World(kafka.bootstrap_servers, tmp_path).create()
    world.retry_delays_seconds = (1, 2)
    receiver.answer = Moods(n1=[503] * 3)
    async with world.consuming([webhook(receiver.url)]):
        world.produce(notifications(1))
        await receiver.wait_for(1)
        await world.create_retry_topics(1, 2)
        await asyncio.to_thread(world.wait_until_owned, world.tiers[0].topic)
        world.produce(notifications(1, start=1))
        await receiver.wait_for(2)
        [record] = await world.read_topic(world.tiers[0].topic, 1)
    assert parse_retry_record(record).deferral.channel == "hook"
