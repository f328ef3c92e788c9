"""One crash at each point where a process can die, and the exact number of receipts and uncertain sends after it."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from chaos.crash_points import CrashPoint
from chaos.manners import Manners
from chaos.oracle import Promise
from chaos.pipeline import Outcome, Pipeline, Shape
from tocsin_cli.embedded.kafka import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

RECIPIENTS = 4
EACH = 5
SENT = RECIPIENTS * EACH
SHAPE = Shape(partitions=2, recipients=RECIPIENTS, concurrency=RECIPIENTS, manners=Manners(max_delay_seconds=0.005))


class Case(NamedTuple):
    """A crash point, how many deliveries must be there before the process dies, and what follows exactly."""

    point: CrashPoint
    has_store: bool
    after: int
    duplicates: int
    uncertain: int
    why: str


CASES = (
    Case(CrashPoint.AFTER_CLAIM, True, RECIPIENTS, 0, RECIPIENTS, "claimed and never sent: repeated and counted"),
    Case(CrashPoint.AFTER_SEND, True, RECIPIENTS, RECIPIENTS, RECIPIENTS, "sent and not remembered: once more, counted"),
    Case(CrashPoint.AFTER_DONE, True, RECIPIENTS, 0, 0, "remembered: never sent again"),
    Case(CrashPoint.BEFORE_COMMIT, True, SENT, 0, 0, "remembered although not committed"),
    Case(CrashPoint.BEFORE_COMMIT, False, SENT, SENT, 0, "nothing remembers what was not committed"),
    Case(CrashPoint.IN_REVOKE, True, SENT, 0, 0, "remembered although not committed"),
    Case(CrashPoint.IN_REVOKE, False, SENT, SENT, 0, "nothing remembers what was not committed"),
)


async def crash_once(kafka: EmbeddedKafka, directory: Path, case: Case) -> Outcome:
    async with Pipeline(kafka.bootstrap_servers, directory, replace(SHAPE, has_store=case.has_store)) as pipeline:
        pipeline.load.produce_evenly(EACH)
        await pipeline.load.flush()
        doomed = await pipeline.add_member("--crash-at", case.point, "--after", str(case.after))
        if case.point is CrashPoint.IN_REVOKE:
            await pipeline.wait_for(lambda receipts: len(receipts) == SENT)
            code = await doomed.terminate(timeout_seconds=30)
        else:
            code = await doomed.wait(timeout_seconds=60)
        assert code == -signal.SIGKILL
        pipeline.members.remove(doomed)
        await pipeline.add_member()
        return await pipeline.settle(Promise(bounds_duplicates=case.has_store))


async def test_after_a_crash_at_any_point_receipts_and_uncertain_sends_are_exactly_as_foreseen(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    runs = (crash_once(kafka, tmp_path / str(number), case) for number, case in enumerate(CASES))
    outcomes = await asyncio.gather(*runs)
    for case, outcome in zip(CASES, outcomes, strict=True):
        counts = outcome.findings.counts
        assert outcome.reasons == [], case
        assert (counts.sent, counts.duplicates, counts.uncertain) == (SENT, case.duplicates, case.uncertain), case
