"""The faults: what is done to running pipelines, and what they are held to while it is done.

Every fault meets one pipeline under each group protocol. All moments come from the seed. Graceful faults run without a
store on one of the two, because there a hand-over has to be right by itself: nothing would absorb a repetition.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from chaos.ground import Broker
from chaos.manners import Manners
from chaos.oracle import Promise
from chaos.pipeline import POSTED, Pipeline, Shape, spread
from chaos.posting import posting

BURST_EACH = 30
"""Messages to each recipient at once: more than a channel that stands still can hold in memory."""

Disturb = Callable[[Sequence[Pipeline], Broker, random.Random], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    disturb: Disturb
    shapes: tuple[Shape, ...]
    promise: Promise
    is_of_broker: bool = False
    """Whether it disturbs the broker, and so everybody on it: such faults run alone."""

    def promise_to(self, shape: Shape) -> Promise:
        """Return what a pipeline of this shape is held to: strict order is kept whatever the provider does."""
        return replace(self.promise, keeps_order_of_deliveries=True) if shape.ordering == "Strict" else self.promise


def each(disturb_one: Callable[[Pipeline, random.Random], Awaitable[None]]) -> Disturb:
    """Return the fault that does this to every pipeline by itself."""

    async def disturb(pipelines: Sequence[Pipeline], _: Broker, chance: random.Random) -> None:
        seeds = [random.Random(chance.random()) for _ in pipelines]
        await asyncio.gather(*(disturb_one(pipeline, own) for pipeline, own in zip(pipelines, seeds, strict=True)))

    return disturb


async def _do_nothing(_: Pipeline, __: random.Random) -> None:
    await asyncio.sleep(6.0)


async def kill_at_random(pipeline: Pipeline, chance: random.Random) -> None:
    for wait in spread(chance, 3, first=0.0, last=10.0):
        await asyncio.sleep(wait)
        await pipeline.replace(chance.choice(pipeline.members))


async def _roll(pipeline: Pipeline, chance: random.Random) -> None:
    for old in list(pipeline.members):
        await pipeline.add_member()
        await asyncio.sleep(chance.uniform(1.0, 4.0))
        await pipeline.retire(old)


async def _storm(pipeline: Pipeline, chance: random.Random) -> None:
    for count in (5, 1, 5, 1):
        await pipeline.scale(count)
        await asyncio.sleep(chance.uniform(0.5, 5.0))


async def _make_zombie(pipeline: Pipeline, chance: random.Random) -> None:
    for member in chance.sample(pipeline.members, 2):
        await member.freeze(pipeline.shape.session_seconds + chance.choice([1.0, 3.0, 9.0]) + chance.random())


async def _crash_store(pipeline: Pipeline, chance: random.Random) -> None:
    assert pipeline.store is not None
    for wait in spread(chance, 2, first=0.0, last=5.0):
        await asyncio.sleep(wait)
        await pipeline.store.crash(away_seconds=chance.uniform(0.0, 4.0))


async def _flush_store(pipeline: Pipeline, chance: random.Random) -> None:
    assert pipeline.store is not None
    for wait in spread(chance, 2, first=0.0, last=6.0):
        await asyncio.sleep(wait)
        await pipeline.store.flush()
        await asyncio.sleep(chance.choice([0.0, 0.05, 0.5]))
        await pipeline.replace(chance.choice(pipeline.members))


async def _be_away(pipeline: Pipeline, chance: random.Random) -> None:
    """One channel's provider is away while the other's works, a burst comes, and consumers are replaced meanwhile."""
    await pipeline.set_manners(away=["hook"])
    pipeline.load.produce_evenly(BURST_EACH)
    await asyncio.sleep(chance.uniform(2.0, 5.0))
    for old in list(pipeline.members):
        await pipeline.add_member()
        await pipeline.retire(old)
    await asyncio.sleep(chance.uniform(0.0, 2.0))
    await pipeline.set_manners()


async def _be_away_and_kill(pipeline: Pipeline, chance: random.Random) -> None:
    await pipeline.set_manners(away=["hook"])
    pipeline.load.produce_evenly(BURST_EACH)
    for wait in spread(chance, 2, first=1.0, last=6.0):
        await asyncio.sleep(wait)
        await pipeline.replace(chance.choice(pipeline.members))
    await pipeline.set_manners()
    await asyncio.sleep(chance.uniform(0.0, 3.0))
    await pipeline.replace(chance.choice(pipeline.members))


async def _crash_broker(_: Sequence[Pipeline], broker: Broker, chance: random.Random) -> None:
    for _number in range(2):
        await asyncio.sleep(chance.uniform(0.5, 4.0))
        await broker.crash(away_seconds=chance.uniform(0.0, 3.0))
    await asyncio.sleep(2.0)


async def _stall_broker(pipelines: Sequence[Pipeline], broker: Broker, chance: random.Random) -> None:
    session_seconds = pipelines[0].shape.session_seconds
    for seconds in (chance.uniform(1.0, session_seconds), session_seconds + chance.uniform(1.0, 4.0)):
        await asyncio.sleep(chance.uniform(0.5, 3.0))
        await broker.stall(seconds)
    await asyncio.sleep(2.0)


async def _crash_broker_under_ingestion(pipelines: Sequence[Pipeline], broker: Broker, chance: random.Random) -> None:
    async with AsyncExitStack() as stack:
        for pipeline in pipelines:
            url = await pipeline.start_ingestion()
            await stack.enter_async_context(posting(pipeline.load, url, POSTED, each_per_second=2.0, chance=chance))
        await asyncio.sleep(chance.uniform(1.0, 3.0))
        await broker.crash(away_seconds=chance.uniform(0.0, 2.0))
        await asyncio.sleep(chance.uniform(1.0, 3.0))
        await broker.stall(chance.uniform(1.0, pipelines[0].shape.session_seconds))
        await asyncio.sleep(2.0)


def both(shape: Shape = Shape()) -> tuple[Shape, ...]:  # noqa: B008 - frozen
    """Return this shape under both group protocols."""
    return replace(shape, protocol="consumer"), replace(shape, protocol="classic")


CALM = Shape(session_seconds=20.0)
"""Where nothing crashes, no member may be taken for dead because the machine is busy."""
CALM_WITHOUT_STORE = replace(CALM, has_store=False)
BAD_DAY = Manners(max_delay_seconds=0.05, throttled=0.005, failed=0.08, dropped=0.03, slow=0.01, refused=0.01)
TROUBLED = Shape(members=2, manners=BAD_DAY, per_second=25.0)
CLASSIC_TROUBLED = replace(TROUBLED, protocol="classic")
STRICT_TROUBLED = replace(TROUBLED, ordering="Strict")
CALM_TROUBLED = replace(TROUBLED, session_seconds=CALM.session_seconds)
STRICT_CALM_TROUBLED = replace(CALM_TROUBLED, protocol="classic", ordering="Strict")
AWAY = Shape(
    members=2,
    partitions=2,
    channels=("hook", "mail"),
    concurrency=16,
    per_second=20.0,
    manners=Manners(max_delay_seconds=0.01),
)
CALM_AWAY = replace(AWAY, session_seconds=CALM.session_seconds, has_store=False)
GRACEFUL = Promise(is_graceful=True, max_uncertain=0)
RELAXED = Promise(keeps_order_of_deliveries=False)

FAULTS = (
    Fault("none", each(_do_nothing), both(replace(CALM, channels=("hook", "mail"), members=2)), GRACEFUL),
    Fault("kill", each(kill_at_random), both(), Promise(max_uncertain=3 * Shape().concurrency)),
    Fault("zombie", each(_make_zombie), both(), Promise()),
    Fault("sigterm", each(_roll), (*both(CALM_WITHOUT_STORE), CALM), GRACEFUL),
    Fault("scale", each(_storm), both(replace(CALM_WITHOUT_STORE, members=1, concurrency=3)), GRACEFUL),
    Fault("provider", each(_do_nothing), (CALM_TROUBLED, STRICT_CALM_TROUBLED), replace(RELAXED, may_bury=True)),
    Fault("provider-kill", each(kill_at_random), (STRICT_TROUBLED, CLASSIC_TROUBLED), replace(RELAXED, may_bury=True)),
    Fault("away", each(_be_away), both(CALM_AWAY), replace(GRACEFUL, keeps_order_of_deliveries=False)),
    Fault("away-kill", each(_be_away_and_kill), both(AWAY), RELAXED),
    Fault("store-kill", each(_crash_store), both(Shape(members=2)), Promise()),
    Fault("store-flush", each(_flush_store), both(Shape(members=2)), Promise()),
    Fault("broker-kill", _crash_broker, both(), Promise(), is_of_broker=True),
    Fault("broker-stall", _stall_broker, both(), Promise(), is_of_broker=True),
    Fault("ingestion", _crash_broker_under_ingestion, both(Shape(members=2)), Promise(), is_of_broker=True),
)
