"""Runs faults: most of them side by side on a sound broker, those of the broker each on one of its own.

Every seed begins on empty brokers: one that keeps what earlier seeds left starts more slowly after each crash, until a
seed fails that would be kept when it is run alone.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from chaos.faults import Fault
from chaos.ground import SHORT_LIFE, Broker
from chaos.oracle import Counts, Receipt
from chaos.pipeline import Outcome, Pipeline

SIDE_BY_SIDE, OF_BROKER = 4, 2
"""How many faults run at once, and of those of the broker beside them: as many as two cores can start processes for
without making everybody late."""

FLOWING_RECEIPTS = 20


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
    faults: Sequence[Fault], seed: int, directory: Path, *, bug: str = "", say: Callable[[str], None]
) -> list[Result]:
    """Run these faults under one seed, and tell `say` how each of them went. Where all was kept no files are left."""
    places, places_of_broker = asyncio.Semaphore(SIDE_BY_SIDE), asyncio.Semaphore(OF_BROKER)
    own = directory / f"seed-{seed}"

    async def run_on(broker: Broker, fault: Fault) -> Result:
        began = time.monotonic()
        result = await run_fault(broker, fault, seed, own / fault.name, bug=bug)
        kept = "kept" if result.is_kept else "BROKEN"
        say(f"seed {seed}, {fault.name}: {kept}, {time.monotonic() - began:.0f} s")
        return result

    async def run(fault: Fault) -> Result:
        if fault.is_of_broker:
            async with places_of_broker, Broker(own / f"broker-{fault.name}", properties=SHORT_LIFE) as broken:
                return await run_on(broken, fault)
        async with places:
            return await run_on(sound, fault)

    # A group, so that should the suite itself fail nothing goes on on brokers that are gone.
    async with Broker(own / "broker") as sound, asyncio.TaskGroup() as group:
        runs = [group.create_task(run(fault)) for fault in faults]
    results = [each.result() for each in runs]
    if all(each.is_kept for each in results):
        shutil.rmtree(own)
    return results


async def run_fault(broker: Broker, fault: Fault, seed: int, directory: Path, *, bug: str = "") -> Result:
    """Run one fault: start, produce, disturb, let it settle, judge. What kept its promise leaves no files."""
    chance = random.Random(f"{seed}/{fault.name}")
    async with AsyncExitStack() as stack:
        pipelines = [
            await stack.enter_async_context(
                Pipeline(broker.address, directory / f"{number}-{shape.protocol}", shape, bug=bug)
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
    result = Result(fault, seed, directory, outcomes)
    if result.is_kept:
        shutil.rmtree(directory)
    return result


def is_flowing(receipts: Sequence[Receipt]) -> bool:
    """Return whether messages arrive: a fault before that would disturb nothing."""
    return len(receipts) >= FLOWING_RECEIPTS
