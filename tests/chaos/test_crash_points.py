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
QUICK = Manners(max_delay_seconds=0.005)
SHAPE = Shape(partitions=2, recipients=RECIPIENTS, concurrency=RECIPIENTS, manners=QUICK)
STORELESS = replace(SHAPE, has_store=False)
RETRYING = replace(SHAPE, recipients=1, manners=Manners(max_delay_seconds=0.005, fail_first=2))
STRICT = replace(RETRYING, ordering="Strict")


class Case(NamedTuple):
    """A crash point, how many deliveries must be there before the process dies, and what follows exactly."""

    point: CrashPoint
    shape: Shape
    after: int
    duplicates: int
    uncertain: int
    why: str


CASES = (
    Case(CrashPoint.AFTER_CLAIM, SHAPE, RECIPIENTS, 0, RECIPIENTS, "claimed and never sent: repeated and counted"),
    Case(CrashPoint.AFTER_SEND, SHAPE, RECIPIENTS, RECIPIENTS, RECIPIENTS, "sent, not remembered: repeated, counted"),
    Case(CrashPoint.AFTER_DONE, SHAPE, RECIPIENTS, 0, 0, "remembered: never sent again"),
    Case(CrashPoint.BEFORE_COMMIT, SHAPE, SENT, 0, 0, "remembered although not committed"),
    Case(CrashPoint.BEFORE_COMMIT, STORELESS, SENT, SENT, 0, "nothing remembers what was not committed"),
    Case(CrashPoint.IN_REVOKE, SHAPE, SENT, 0, 0, "remembered although not committed"),
    Case(CrashPoint.IN_REVOKE, STORELESS, SENT, SENT, 0, "nothing remembers what was not committed"),
    Case(CrashPoint.AFTER_RETRY_PRODUCE, RETRYING, 1, 0, 0, "two records of one delivery: one is sent"),
    Case(CrashPoint.AFTER_RETRY_PRODUCE, STRICT, 1, 0, 0, "two records of one delivery: one is sent, in its turn"),
)


async def crash_once(kafka: EmbeddedKafka, directory: Path, case: Case) -> Outcome:
    async with Pipeline(kafka.bootstrap_servers, directory, case.shape) as pipeline:
        pipeline.load.produce_evenly(EACH)
        await pipeline.load.flush()
        doomed = await pipeline.start_process("--crash-at", case.point, "--after", str(case.after))
        if case.point is CrashPoint.IN_REVOKE:
            await pipeline.wait_for(lambda receipts: len(receipts) == SENT)
            code = await doomed.terminate(timeout_seconds=30)
        else:
            code = await doomed.wait(timeout_seconds=60)
        assert code == -signal.SIGKILL
        await pipeline.add_member()
        keeps_order = case.shape is not RETRYING  # relaxed, a delivery that waits in a retry topic is overtaken
        return await pipeline.settle(
            Promise(bounds_duplicates=case.shape.has_store, keeps_order_of_deliveries=keeps_order)
        )


async def test_after_a_crash_at_any_point_receipts_and_uncertain_sends_are_exactly_as_foreseen(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    runs = (crash_once(kafka, tmp_path / f"{number}-{case.point}", case) for number, case in enumerate(CASES))
    outcomes = await asyncio.gather(*runs)
    for case, outcome in zip(CASES, outcomes, strict=True):
        counts = outcome.findings.counts
        assert outcome.breaches == [], case
        assert counts.sent == EACH * case.shape.recipients
        assert (counts.duplicates, counts.uncertain) == (case.duplicates, case.uncertain), case


async def test_after_a_crash_between_a_dead_letter_and_its_commit_nothing_is_tried_again(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    shape = replace(SHAPE, manners=Manners(max_delay_seconds=0.005, refused=1.0))
    async with Pipeline(kafka.bootstrap_servers, tmp_path, shape) as pipeline:
        pipeline.load.produce_evenly(EACH)
        await pipeline.load.flush()
        doomed = await pipeline.start_process("--crash-at", CrashPoint.AFTER_BURIAL, "--after", str(RECIPIENTS))
        assert await doomed.wait(timeout_seconds=60) == -signal.SIGKILL
        await pipeline.add_member()
        outcome = await pipeline.settle(Promise(may_bury=True))
    assert outcome.breaches == []
    assert outcome.findings.counts.dead_lettered == SENT
    assert len(outcome.receipts) == SENT
