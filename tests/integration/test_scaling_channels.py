"""A real consumer with two channels, one of whose receivers is down: what the scaler makes of its commits and pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from receiver import Answer, Receiver
from scaling_ports import Ports
from tocsin_core.admin import KafkaAdmin
from tocsin_operator.clock import SteadyClock
from tocsin_operator.pods import PageReader
from tocsin_operator.scaling.counters import parse_consumer
from tocsin_operator.scaling.loop import ScalingLoop
from tocsin_operator.scaling.model import Config, ConsumerCounters, Hold
from tocsin_operator.scaling.ports import Report, Target
from tocsin_operator.scaling.report import build_claims
from world import ConsumerProcess, World, notifications, webhook

pytestmark = pytest.mark.kafka

CONFIG = Config(max_lag_seconds=20, interval_seconds=1, capacity_per_second=200, channels=("up", "down"))
BACKLOG = 200


@pytest.fixture
def up() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


@pytest.fixture
def down() -> Iterator[Receiver]:
    with Receiver(Answer(503)) as server:
        yield server


@pytest.fixture
async def consumer(world: World, up: Receiver, down: Receiver) -> ConsumerProcess:
    world.produce(notifications(BACKLOG))
    return await world.start_process([webhook(up.url, "up"), webhook(down.url, "down")])


@asynccontextmanager
async def scaling(world: World, admin: KafkaAdmin, **more: object) -> AsyncIterator[Ports]:
    """Run the loop beside a load of ten notifications a second."""
    target = Target("ns/two", "uid", "kafka", f"{world.topic}-group", world.topic, CONFIG)
    ports = Ports(admin, target, **more)  # type: ignore[arg-type]
    loop = ScalingLoop(observer=ports, actor=ports, publisher=ports, clock=SteadyClock())
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(loop.run()), tasks.create_task(trickle(world))]
        yield ports
        for task in running:
            task.cancel()


async def trickle(world: World) -> None:
    start = BACKLOG
    while True:
        world.produce(notifications(5, start=start))
        start += 5
        await asyncio.sleep(0.5)


async def wait_until(ports: Ports, is_so: Callable[[Report], bool], *, seconds: float = 90) -> Report:
    async with asyncio.timeout(seconds):
        report = await ports.reports.get()
        while not is_so(report):
            report = await ports.reports.get()
    return report


def find_hold(report: Report, channel: str) -> Hold | None:
    assert report.decision is not None
    return {each.name: each.hold for each in report.decision.inputs.channels}.get(channel)


async def test_a_channel_that_is_down_is_left_out_by_its_commits_and_counts_again_when_it_goes_on(
    world: World, consumer: ConsumerProcess, down: Receiver, admin: KafkaAdmin
) -> None:
    await consumer.wait_for("consumer started")
    async with scaling(world, admin) as ports:
        report = await wait_until(ports, lambda each: find_hold(each, "down") is Hold.STANDING_STILL)
        assert report.decision is not None
        lags = {each.name: each.lag for each in report.decision.inputs.channels}
        assert lags["down"] == report.decision.inputs.total_lag
        assert lags["down"] >= BACKLOG
        assert lags["up"] < BACKLOG / 2
        assert ports.wanted == 1
        assert build_claims(report)[3].reason == "ChannelStuck"
        down.answer = Answer()
        report = await wait_until(ports, lambda each: find_hold(each, "down") is None)
        assert report.decision is not None
        assert report.decision.is_trusted
        report = await wait_until(
            ports, lambda each: bool(each.decision and (each.decision.inputs.total_lag or 0) < 50)
        )
        assert report.kafka_failure is None


async def test_pods_say_at_once_that_a_channel_s_provider_holds_it_back(
    world: World, consumer: ConsumerProcess, admin: KafkaAdmin
) -> None:
    (started,) = await consumer.wait_for("consumer started")
    reader = PageReader(port=started["health_port"])

    async def read_counters() -> ConsumerCounters | None:
        page = await reader.read("127.0.0.1")
        return parse_consumer("pod", page) if page is not None else None

    async with scaling(world, admin, read_counters=read_counters) as ports:
        report = await wait_until(ports, lambda each: find_hold(each, "down") is Hold.PROVIDER)
        assert report.observation is not None
        assert build_claims(report)[3].reason == "ChannelHeldBack"
        assert ports.wanted == 1
    await reader.close()
