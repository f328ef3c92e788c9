"""Claims, sends and crashes together, on a real Valkey: several devices, several processes, one effect each."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis

from deliveries import build_delivery, build_envelope
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_consumer.channels.base import Envelope, TemporaryFailure
from tocsin_consumer.claims import Held
from tocsin_consumer.journey import Reached
from tocsin_consumer.redis_claims import RedisClaims
from tocsin_consumer.sending import Result, Sender
from tocsin_core.complaints import Complaints
from tocsin_core.settings import RedisSettings
from tocsin_core.users import Profile

DEVICES = ("phone:with:colons", "tablet", "watch")


class PushChannel:
    """Sends to every device of a profile; the devices in `failing` fail, those in `hanging` never answer."""

    name = "push"
    timeout_seconds = 5.0
    repeats_are_harmless = False

    def __init__(self) -> None:
        self.receipts: Counter[tuple[str, str]] = Counter()
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.has_hung = asyncio.Event()

    def devices(self, profile: Profile) -> Sequence[str]:
        return [device["token"] for device in profile.devices]

    async def send(self, envelope: Envelope) -> None:
        await asyncio.sleep(0)
        if envelope.device in self.failing:
            raise TemporaryFailure("HTTP 503")
        self.receipts[envelope.notification.id, envelope.device] += 1
        if envelope.device in self.hanging:
            self.has_hung.set()
            await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing to close."""


class Process:
    """What one consumer process has: connections of its own, and nothing remembered from another."""

    def __init__(self, url: str, pipeline: str, channel: PushChannel) -> None:
        self.claims = RedisClaims(RedisSettings(url=url), pipeline=pipeline)
        self._sender = Sender(self.claims, complaints=Complaints(lambda *_, **__: None))
        self._channel = channel

    async def deliver(self, number: int) -> Result:
        """Deliver one notification until something other than somebody else's claim is in the way."""
        delivery = build_delivery(number)
        envelope = build_envelope(delivery, Profile(id="2", devices=tuple({"token": device} for device in DEVICES)))
        while True:
            result = await self._sender.send(delivery, self._channel, envelope)
            if not isinstance(result, Held):
                return result
            await asyncio.sleep(result.again_in_seconds)


@pytest.fixture
def channel() -> PushChannel:
    return PushChannel()


@pytest.fixture
def pipeline() -> str:
    return f"tests/{secrets.token_hex(4)}"


@pytest.fixture
async def processes(valkey: EmbeddedValkey, pipeline: str, channel: PushChannel) -> AsyncIterator[list[Process]]:
    processes = [Process(valkey.url, pipeline, channel) for _ in range(3)]
    for process in processes:
        await process.claims.start()
    yield processes
    for process in processes:
        await process.claims.close()


async def test_each_device_gets_it_once_however_many_processes_have_the_record(
    processes: list[Process], channel: PushChannel
) -> None:
    await asyncio.gather(*(process.deliver(number) for number in range(100) for process in processes))
    assert len(channel.receipts) == 300
    assert set(channel.receipts.values()) == {1}


async def test_a_device_that_fails_does_not_repeat_the_others_even_in_another_process(
    processes: list[Process], channel: PushChannel
) -> None:
    channel.failing = {"tablet"}
    assert isinstance(await processes[0].deliver(1), TemporaryFailure)
    channel.failing = set()
    assert await processes[1].deliver(1) is Reached.SENT
    assert await processes[2].deliver(1) is Reached.SENT_BEFORE
    assert channel.receipts == {("n1", device): 1 for device in DEVICES}


async def test_a_crash_in_the_middle_repeats_only_the_device_whose_answer_nobody_saw_and_counts_it(
    processes: list[Process],
    channel: PushChannel,
    valkey: EmbeddedValkey,
    pipeline: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tocsin_consumer.sending.LEASE_MARGIN_SECONDS", 0.2)
    monkeypatch.setattr(channel, "timeout_seconds", 2.0)
    channel.hanging = {"watch"}
    crashing = asyncio.create_task(processes[0].deliver(1))
    await channel.has_hung.wait()
    redis = Redis.from_url(valkey.url)
    await wait_until_done(redis, pipeline, devices=2)
    assert crashing.cancel()
    await asyncio.gather(crashing, return_exceptions=True)
    channel.hanging = set()
    assert await processes[1].deliver(1) is Reached.SENT
    assert channel.receipts == {("n1", DEVICES[0]): 1, ("n1", "tablet"): 1, ("n1", "watch"): 2}
    assert await redis.get(f"tocsin:{{{pipeline}}}:uncertain") == b"1"
    await redis.aclose()


async def wait_until_done(redis: Redis, pipeline: str, *, devices: int) -> None:
    async with asyncio.timeout(10):
        while True:
            keys = [key async for key in redis.scan_iter(f"tocsin:{{{pipeline}}}:push:*")]
            if [await redis.get(key) for key in keys].count(b"D") == devices:
                return
            await asyncio.sleep(0.01)
