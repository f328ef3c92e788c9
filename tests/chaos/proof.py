"""The suite's own proof: with each deliberate bug put in, a fault and a seed that catch it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from chaos.bugs import Bug
from chaos.faults import FAULTS
from chaos.ground import Broker
from chaos.suite import Result, run_fault


class Trap(NamedTuple):
    """A bug, and the fault that catches it within one run of one seed."""

    bug: Bug
    fault: str
    seed: int = 1


TRAPS = (
    Trap(Bug.COMMIT_BEFORE_COMPLETION, "kill"),
    Trap(Bug.DEDUPE_OFF, "kill"),
    Trap(Bug.FENCE_BEFORE_DRAIN, "scale"),
    Trap(Bug.EPOCH_CHECK_OFF, "scale"),
)


async def prove(broker: Broker, directory: Path, traps: Sequence[Trap] = TRAPS) -> int:
    """Run every trap, and print what it caught; return how many bugs were not noticed."""
    results = await asyncio.gather(*(_spring(broker, directory, trap) for trap in traps))
    for trap, result in zip(traps, results, strict=True):
        reasons = [breach.reason for outcome in result.outcomes for breach in outcome.breaches]
        verdict = "caught" if reasons else "NOT NOTICED"
        print(
            f"{trap.bug}: {verdict} by {trap.fault} with seed {trap.seed}: {'; '.join(reasons) or 'all promises kept'}"
        )
    return sum(result.is_kept for result in results)


async def _spring(broker: Broker, directory: Path, trap: Trap) -> Result:
    [fault] = [fault for fault in FAULTS if fault.name == trap.fault]
    return await run_fault(broker, fault, trap.seed, directory / trap.bug, bug=trap.bug)
