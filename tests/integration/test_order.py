"""Who waits for whom, in a real Valkey."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_consumer.order import Behind, Free, OrderUnavailable, Place, Relaxed, Strict
from tocsin_core.settings import RedisSettings

FIRST, SECOND, THIRD = (Place("hook", b"2", 3, offset) for offset in (5, 6, 7))
TTL_SECONDS = 100.0


@pytest.fixture
def pipeline() -> str:
    return f"tests/{secrets.token_hex(4)}"


@pytest.fixture
async def order(valkey: EmbeddedValkey, pipeline: str) -> AsyncIterator[Strict]:
    order = Strict(RedisSettings(url=valkey.url), pipeline=pipeline, max_connections=8)
    yield order
    await order.close()


async def queue(order: Strict, *places: Place, due_in_seconds: float = 10.0, ends_in_seconds: float = 60.0) -> None:
    for place in places:
        await order.queue(place, due_in_seconds=due_in_seconds, ends_in_seconds=ends_in_seconds)


async def test_where_nobody_waits_everybody_may_go(order: Strict) -> None:
    assert await order.ask(FIRST) == Free()


async def test_who_comes_later_stands_behind_and_is_told_for_how_long(order: Strict) -> None:
    await queue(order, FIRST, due_in_seconds=10)
    await queue(order, SECOND, due_in_seconds=60)
    behind_first, behind_second = await order.ask(SECOND), await order.ask(THIRD)
    assert isinstance(behind_first, Behind)
    assert isinstance(behind_second, Behind)
    assert 9 < behind_first.due_in_seconds <= 10
    assert 59 < behind_second.due_in_seconds <= 60


async def test_the_first_may_go_and_when_it_has_left_the_next(order: Strict) -> None:
    await queue(order, FIRST, SECOND)
    assert await order.ask(FIRST) == Free(is_queued=True)
    await order.leave(FIRST)
    assert await order.ask(SECOND) == Free(is_queued=True)
    await order.leave(SECOND)
    assert await order.ask(THIRD) == Free()


async def test_who_is_queued_again_keeps_its_place_with_another_time(order: Strict) -> None:
    await queue(order, FIRST, SECOND)
    await queue(order, FIRST, due_in_seconds=600)
    behind = await order.ask(SECOND)
    assert await order.ask(FIRST) == Free(is_queued=True)
    assert isinstance(behind, Behind)
    assert behind.due_in_seconds > 590


async def test_who_leaves_from_the_middle_or_twice_disturbs_nobody(order: Strict) -> None:
    await queue(order, FIRST, SECOND, THIRD)
    for _ in range(2):
        await order.leave(SECOND)
    assert await order.ask(FIRST) == Free(is_queued=True)
    assert isinstance(await order.ask(THIRD), Behind)


async def test_what_is_overdue_is_waited_for_no_longer_than_now(order: Strict) -> None:
    await queue(order, FIRST, due_in_seconds=0)
    assert await order.ask(SECOND) == Behind(0.0)


async def test_who_never_comes_back_holds_up_the_others_until_its_end_and_no_longer(order: Strict) -> None:
    await queue(order, FIRST, due_in_seconds=0, ends_in_seconds=0.05)
    await queue(order, SECOND)
    await asyncio.sleep(0.1)  # the end is told on the store's clock
    assert await order.ask(SECOND) == Free(is_queued=True)
    assert isinstance(await order.ask(THIRD), Behind)


async def test_keys_and_channels_wait_apart(order: Strict) -> None:
    await queue(order, FIRST)
    assert await order.ask(SECOND._replace(key=b"3")) == Free()
    assert await order.ask(SECOND._replace(channel="mail")) == Free()


async def test_other_pipelines_wait_apart(order: Strict, valkey: EmbeddedValkey) -> None:
    await queue(order, FIRST)
    other = Strict(RedisSettings(url=valkey.url), pipeline="tests/other", max_connections=1)
    assert await other.ask(SECOND) == Free()
    await other.close()


async def test_another_process_sees_the_same_queue(order: Strict, valkey: EmbeddedValkey, pipeline: str) -> None:
    await queue(order, FIRST)
    other = Strict(RedisSettings(url=valkey.url), pipeline=pipeline, max_connections=1)
    assert isinstance(await other.ask(SECOND), Behind)
    await other.leave(FIRST)
    assert await order.ask(SECOND) == Free()
    await other.close()


async def test_any_bytes_can_be_a_key(order: Strict) -> None:
    place = FIRST._replace(key=b"\x00\xff{}:\n" * 1000)
    await queue(order, place)
    assert await order.ask(place) == Free(is_queued=True)


async def test_nothing_is_kept_for_ever(order: Strict, valkey: EmbeddedValkey, pipeline: str) -> None:
    await queue(order, FIRST, ends_in_seconds=TTL_SECONDS)
    await queue(order, SECOND, ends_in_seconds=1)
    async with Redis.from_url(valkey.url) as redis:
        names = [name async for name in redis.scan_iter(f"tocsin:{{{pipeline}*")]
        lives = [await redis.pttl(name) for name in names]
    assert len(names) == 2
    assert all(0 < life <= TTL_SECONDS * 1000 for life in lives)
    assert min(lives) > 90_000


async def test_an_empty_queue_leaves_no_key(order: Strict, valkey: EmbeddedValkey, pipeline: str) -> None:
    await queue(order, FIRST, SECOND)
    await order.leave(FIRST)
    await order.leave(SECOND)
    async with Redis.from_url(valkey.url) as redis:
        assert [name async for name in redis.scan_iter(f"tocsin:{{{pipeline}*")] == []


async def test_a_store_that_is_away_is_said_so_without_its_address() -> None:
    order = Strict(RedisSettings(url="redis://127.0.0.1:1"), pipeline="tests/away", max_connections=1)
    for ask in (order.ask(FIRST), order.leave(FIRST), order.queue(FIRST, due_in_seconds=1, ends_in_seconds=1)):
        with pytest.raises(OrderUnavailable, match=r"check redis\.url") as caught:
            await ask
        assert "127.0.0.1" not in str(caught.value)


async def test_relaxed_order_holds_back_nobody() -> None:
    order = Relaxed()
    await order.queue(FIRST, due_in_seconds=10, ends_in_seconds=60)
    assert await order.ask(SECOND) == Free()
