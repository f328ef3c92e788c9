"""The consumer service on a real broker: what arrives, in which order, and where the rest ends."""

from __future__ import annotations

import random
import secrets
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from redis.asyncio import Redis

from raw_producer import produce_with_header
from receiver import Answer, Delivery, Receiver
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_core.message import Notification
from world import PARTITIONS, World, notifications, webhook

pytestmark = pytest.mark.kafka


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


def by_recipient(deliveries: list[Delivery]) -> dict[str, list[int]]:
    order: dict[str, list[int]] = defaultdict(list)
    for delivery in sorted(deliveries, key=lambda each: each.came_at):
        order[delivery.data["toID"]].append(int(delivery.data["message"]))
    return order


async def test_every_recipient_gets_everything_once_and_in_order_while_many_are_served_at_once(
    world: World, receiver: Receiver
) -> None:
    chance = random.Random(7)
    receiver.answer = lambda _: Answer(delay_seconds=chance.random() / 50)
    world.produce(notifications(400))
    async with world.consuming([webhook(receiver.url)], consumer={"concurrency": 16}):
        deliveries = await receiver.wait_for(400)
    assert sorted(each.id for each in deliveries) == sorted(f"n{number}" for number in range(400))
    assert all(order == sorted(order) for order in by_recipient(deliveries).values())
    assert world.committed() == 400


async def test_a_restart_resumes_where_the_last_commit_was(world: World, receiver: Receiver) -> None:
    world.produce(notifications(40))
    async with world.consuming([webhook(receiver.url)]):
        await receiver.wait_for(40)
    world.produce(notifications(10, start=40))
    async with world.consuming([webhook(receiver.url)]):
        await receiver.wait_for(50)
    assert len(receiver.ids) == len(set(receiver.ids)) == 50


async def test_a_record_that_nobody_can_read_ends_in_the_dead_letter_topic_byte_for_byte_and_stops_nobody(
    world: World, receiver: Receiver
) -> None:
    junk, key, header = b"\x00\xff not json", b"\xfe1", ("x-custom", b"\x80\x81")
    world.produce(notifications(10))
    world.produce_raw(junk, key, [header])
    world.produce(notifications(10, start=10))
    async with world.consuming([webhook(receiver.url)]):
        await receiver.wait_for(20)
        [letter] = await world.read_dead_letters(1)
    assert (letter.value, letter.key, letter.headers[0]) == (junk, key, header)
    assert letter.header("dlq-reason") == b"undecodable"
    assert letter.header("dlq-original-topic") == world.topic.encode()
    assert letter.header("dlq-consumer-group") == f"{world.topic}-group".encode()
    assert world.committed() == 21


async def test_headers_of_which_one_has_no_text_for_a_name_are_lost_and_the_record_is_delivered(
    world: World, receiver: Receiver
) -> None:
    for number in range(3):
        value = b'{"id":"n%d","fromID":"1","toID":"2","message":"%d"}' % (number, number)
        produce_with_header(world.bootstrap, world.topic, value, b"2", name=b"\xe4bad", content=b"x")
    world.produce(notifications(3, start=3))
    async with world.consuming([webhook(receiver.url)]):
        await receiver.wait_for(6)
    assert sorted(receiver.ids) == [f"n{number}" for number in range(6)]
    assert world.committed() == 6


@pytest.mark.parametrize("value", [None, b"", b"{}", b'{"id":"x","fromID":1}', b"[" * 2000])
async def test_other_unreadable_values_are_dead_letters_too(
    world: World, receiver: Receiver, value: bytes | None
) -> None:
    world.produce_raw(value, None)
    async with world.consuming([webhook(receiver.url)]):
        [letter] = await world.read_dead_letters(1)
    assert (letter.value, letter.key) == (value, None)
    assert world.committed() == 1


async def test_a_slow_channel_does_not_delay_another(world: World, receiver: Receiver) -> None:
    with Receiver(Answer(delay_seconds=0.5)) as slow:
        world.produce(notifications(40, recipients=4))
        channels = [webhook(slow.url, "slow"), webhook(receiver.url, "fast")]
        async with world.consuming(channels, consumer={"concurrency": 8}):
            deliveries = await receiver.wait_for(40)
            assert len(slow.deliveries) < 20
            await slow.wait_for(40)
    assert all(order == sorted(order) for order in by_recipient(deliveries).values())
    assert world.committed() == 40


async def test_a_failing_send_is_repeated_until_it_succeeds(world: World, receiver: Receiver) -> None:
    failures = iter([503, 429])
    receiver.answer = lambda _: Answer(next(failures, 200))
    world.produce(notifications(1))
    async with world.consuming([webhook(receiver.url)]):
        await receiver.wait_for(1)
    assert world.committed() == 1


async def test_retries_come_to_an_end_in_the_dead_letter_topic(world: World, receiver: Receiver) -> None:
    receiver.answer = lambda each: Answer(503 if each.id == "n0" else 200)
    world.produce(notifications(3, recipients=1))
    async with world.consuming([webhook(receiver.url)], delivery={"max_attempts": 3}):
        [letter] = await world.read_dead_letters(1)
        await receiver.wait_for(2)
    assert receiver.ids == ["n1", "n2"]
    assert letter.header("dlq-reason") == b"retries_exhausted"
    assert letter.header("dlq-attempts") == b"3"
    assert letter.header("dlq-channel") == b"hook"
    assert letter.header("dlq-error-message") == b"HTTP 503"
    assert (letter.header("dlq-first-failed-at") or b"") < (letter.header("dlq-last-failed-at") or b"")
    assert letter.header("traceparent") is not None
    assert world.committed() == 3


async def test_a_permanent_failure_is_a_dead_letter_at_once(world: World, receiver: Receiver) -> None:
    receiver.answer = Answer(410)
    world.produce(notifications(1))
    async with world.consuming([webhook(receiver.url)]):
        [letter] = await world.read_dead_letters(1)
    assert (letter.header("dlq-reason"), letter.header("dlq-attempts")) == (b"provider_permanent", b"1")


async def test_expired_notifications_are_never_sent(world: World, receiver: Receiver) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    world.produce(notifications(5, expires_at=past))
    world.produce(notifications(5, start=5), accepted_at=datetime.now(UTC) - timedelta(seconds=3601))
    world.produce(notifications(5, start=10))
    async with world.consuming([webhook(receiver.url)], delivery={"ttl_seconds": 3600}):
        await receiver.wait_for(5)
    assert sorted(receiver.ids) == [f"n{number}" for number in range(10, 15)]
    assert world.committed() == 15


async def test_only_the_chosen_channels_are_used_and_an_unknown_one_is_a_dead_letter(
    world: World, receiver: Receiver
) -> None:
    with Receiver() as other:
        world.produce(notifications(2, channels=["one", "sms"]))
        async with world.consuming([webhook(receiver.url, "one"), webhook(other.url, "two")]):
            await receiver.wait_for(2)
            letters = await world.read_dead_letters(2)
        assert other.deliveries == []
    assert {(each.header("dlq-reason"), each.header("dlq-channel")) for each in letters} == {
        (b"unknown_channel", b"sms")
    }
    assert world.committed() == 2


async def test_a_recipient_unknown_for_long_is_a_dead_letter(world: World, receiver: Receiver) -> None:
    stranger = Notification(id="n1", from_id="1", to_id="stranger", message="hi")
    world.produce([stranger], accepted_at=datetime.now(UTC) - timedelta(seconds=600))
    async with world.consuming([webhook(receiver.url)]):
        [letter] = await world.read_dead_letters(1)
    assert letter.header("dlq-reason") == b"user_missing"


async def test_a_recipient_who_becomes_known_in_a_moment_is_waited_for(world: World, receiver: Receiver) -> None:
    world.produce([Notification(id="n1", from_id="1", to_id="newcomer", message="hi")])
    async with world.consuming([webhook(receiver.url)]):
        (world.directory / "users.yaml").write_text("newcomer: {name: New}", encoding="utf-8")
        [delivery] = await receiver.wait_for(1)
    assert delivery.data["recipient"] == {"id": "newcomer", "name": "New"}


async def test_without_its_topic_a_dead_letter_holds_its_offset_back_until_the_topic_is_there(
    world: World, receiver: Receiver
) -> None:
    world.dead_letter_topic = f"{world.topic}.late"
    world.produce_raw(b"junk", b"1")
    delivery = {"dead_letter_topic": world.dead_letter_topic}
    consumer = await world.start_process([webhook(receiver.url)], delivery=delivery)
    [line, *_] = await consumer.wait_for("a dead letter cannot be written: its offset is not committed until it can")
    assert world.dead_letter_topic in line["reason"]
    assert "create the topic" in line["advice"]
    assert world.committed() == 0
    await world.create_topic(world.dead_letter_topic, 1)
    [letter] = await world.read_dead_letters(1)
    assert letter.value == b"junk"
    assert await consumer.terminate() == 0
    assert world.committed() == 1


async def test_a_dead_letter_of_any_size_is_whole_where_its_topic_takes_it(world: World, receiver: Receiver) -> None:
    world.topic, world.dead_letter_topic = f"{world.topic}-large", f"{world.topic}-large.dlq"
    await world.create_topic(world.topic, PARTITIONS, max_message_bytes=3_000_000)
    await world.create_topic(world.dead_letter_topic, 1, max_message_bytes=3_065_536)
    value = secrets.token_bytes(2_000_000)
    world.produce_raw(value, b"1")
    async with world.consuming([webhook(receiver.url)]):
        [letter] = await world.read_dead_letters(1)
    assert letter.value == value
    assert world.committed() == 1


async def test_many_small_dead_letters_at_once_are_whole_where_their_topic_takes_each_alone(
    world: World, receiver: Receiver
) -> None:
    world.dead_letter_topic = f"{world.topic}.small"
    await world.create_topic(world.dead_letter_topic, 1, max_message_bytes=70_000)
    values = {secrets.token_bytes(1_000) for _ in range(400)}
    for number, value in enumerate(values):
        world.produce_raw(value, b"%d" % number, flush=number == 399)
    delivery = {"dead_letter_topic": world.dead_letter_topic}
    async with world.consuming([webhook(receiver.url)], consumer={"concurrency": 400}, delivery=delivery):
        letters = await world.read_dead_letters(400)
    assert {letter.value for letter in letters} == values


async def test_with_redis_what_was_sent_is_not_sent_again_by_another_group(
    world: World, receiver: Receiver, valkey: EmbeddedValkey
) -> None:
    world.produce(notifications(20))
    for group in ("first", "second"):
        sections = {"redis": {"url": valkey.url}, "kafka": {"consumer_group": f"{world.topic}-{group}"}}
        consumer = await world.start_process([webhook(receiver.url)], **sections)
        event = "notification delivered" if group == "first" else "notification suppressed"
        await consumer.wait_for(event, count=20)
        assert await consumer.terminate() == 0
    assert len(receiver.ids) == 20


async def test_while_the_store_is_gone_harmless_channels_go_on_and_the_others_wait_for_it(
    world: World, receiver: Receiver
) -> None:
    with EmbeddedValkey() as valkey:
        url = valkey.url
        valkey.stop()
        world.produce(notifications(5))
        channels = [{"name": "log", "type": "Log"}, webhook(receiver.url)]
        consumer = await world.start_process(channels, redis={"url": url})
        await consumer.wait_for("notification", count=5)
        await consumer.wait_for("claims cannot be made: nothing is sent")
        assert receiver.deliveries == []
        valkey.start()
        await receiver.wait_for(5)
        assert await consumer.terminate() == 0
    assert sorted(receiver.ids) == [f"n{number}" for number in range(5)]
    assert world.committed() == 5


async def test_with_a_store_that_evicts_nothing_is_sent_and_readiness_says_what_to_set(
    world: World, receiver: Receiver
) -> None:
    with EmbeddedValkey() as valkey:
        redis = Redis.from_url(valkey.url)
        await redis.config_set("maxmemory", "100mb")
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        world.produce(notifications(5))
        consumer = await world.start_process([webhook(receiver.url)], redis={"url": valkey.url})
        [started] = await consumer.wait_for("consumer started")
        await consumer.wait_for("claims cannot be made: nothing is sent")
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{started['health_port']}/readyz")
        assert answer.status_code == 503
        assert "set maxmemory-policy noeviction" in answer.text
        assert receiver.deliveries == []
        await redis.config_set("maxmemory-policy", "noeviction")
        await receiver.wait_for(5)
        assert await consumer.terminate() == 0
        await redis.aclose()


async def test_what_a_new_pipeline_finds_waiting_is_certain_and_after_a_flush_of_the_store_uncertain(
    world: World, receiver: Receiver, valkey: EmbeddedValkey
) -> None:
    redis = Redis.from_url(valkey.url)
    counter = f"tocsin:{{tests/{world.topic}}}:uncertain"
    world.produce(notifications(5))
    async with world.consuming([webhook(receiver.url)], redis={"url": valkey.url}):
        await receiver.wait_for(5)
    assert await redis.get(counter) is None
    world.produce(notifications(5, start=5))
    keys = [key async for key in redis.scan_iter(f"tocsin:{{tests/{world.topic}}}:*")]
    await redis.delete(*keys)
    async with world.consuming([webhook(receiver.url)], redis={"url": valkey.url}):
        await receiver.wait_for(10)
    assert await redis.get(counter) == b"5"
    await redis.aclose()
