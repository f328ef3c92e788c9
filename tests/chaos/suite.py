"""Runs faults: most of them side by side on a sound broker, those of the broker one by one on one of their own."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from chaos.faults import Fault
from chaos.ground import Broker
from chaos.oracle import Counts, Receipt
from chaos.pipeline import Outcome, Pipeline

SIDE_BY_SIDE = 4
"""How many faults run at once: as many as two cores can start processes for without making everybody late."""

FLOWING_RECEIPTS = 20


class Brokers(NamedTuple):
    """One that nobody touches, and one that is killed and stalled."""

    sound: Broker
    broken: Broker


@dataclass
class Result:
    """What one fault did under one seed: an outcome per pipeline."""

    fault: Fault
    seed: int
    directory: Path
    outcomes: list[Outcome]

    @property
    def counts(self) -> Counts:
        """Return the sum over its pipelines."""
        return sum((each.findings.counts for each in self.outcomes), Counts())

    @property
    def is_kept(self) -> bool:
        """Return whether every promise was kept."""
        return not any(each.breaches for each in self.outcomes)


async def run_seed(
    brokers: Brokers, faults: Sequence[Fault], seed: int, directory: Path, *, bug: str = "", say: Callable[[str], None]
) -> list[Result]:
    """Run these faults under one seed, and tell `say` how each of them went."""
    places, broken = asyncio.Semaphore(SIDE_BY_SIDE), asyncio.Lock()

    async def run(fault: Fault) -> Result:
        async with broken if fault.is_of_broker else places:
            began = time.monotonic()
            broker = brokers.broken if fault.is_of_broker else brokers.sound
            result = await run_fault(broker, fault, seed, directory, bug=bug)
            kept = "kept" if result.is_kept else "BROKEN"
            say(f"seed {seed}, {fault.name}: {kept}, {time.monotonic() - began:.0f} s")
            return result

    async with asyncio.TaskGroup() as group:  # should the suite itself fail, nothing goes on on brokers that are gone
        runs = [group.create_task(run(fault)) for fault in faults]
    return [each.result() for each in runs]


async def run_fault(broker: Broker, fault: Fault, seed: int, directory: Path, *, bug: str = "") -> Result:
    """Run one fault: start, produce, disturb, let it settle, judge. What kept its promise leaves no files."""
    chance = random.Random(f"{seed}/{fault.name}")
    own = directory / f"seed-{seed}" / fault.name
    async with AsyncExitStack() as stack:
        pipelines = [
            await stack.enter_async_context(
                Pipeline(broker.address, own / f"{number}-{shape.protocol}", shape, bug=bug)
            )
            for number, shape in enumerate(fault.shapes, 1)
        ]
        async with AsyncExitStack() as producing:
            for each in pipelines:
                await producing.enter_async_context(each.load.running(each.shape.per_second, chance))
            await asyncio.gather(*(each.scale(each.shape.members) for each in pipelines))
            await asyncio.gather(*(each.wait_for(is_flowing) for each in pipelines))
            await fault.disturb(pipelines, broker, chance)
        outcomes = list(await asyncio.gather(*(each.settle(fault.promise_to(each.shape)) for each in pipelines)))
    result = Result(fault, seed, own, outcomes)
    if result.is_kept:
        shutil.rmtree(own)
    return result


def is_flowing(receipts: Sequence[Receipt]) -> bool:
    """Return whether messages arrive: a fault before that would disturb nothing."""
    return len(receipts) >= FLOWING_RECEIPTS


@asynccontextmanager
async def brokers_in(directory: Path) -> AsyncIterator[Brokers]:
    """Run both brokers for as long as this is entered."""
    async with Broker(directory / "broker") as sound, Broker(directory / "broken-broker") as broken:
        yield Brokers(sound, broken)
