"""One fault of the suite inside `make test`: consumers killed at random moments."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from chaos.faults import both, kill_at_random
from chaos.oracle import Promise
from chaos.pipeline import Pipeline, Shape
from tocsin_cli.embedded.kafka import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.mark.parametrize("shape", both(Shape(members=2)), ids=lambda shape: shape.protocol)
async def test_consumers_killed_at_random_lose_and_reorder_nothing_and_repeat_only_what_they_call_uncertain(
    kafka: EmbeddedKafka, tmp_path: Path, shape: Shape
) -> None:
    chance = random.Random(shape.protocol)
    async with Pipeline(kafka.bootstrap_servers, tmp_path, shape) as pipeline:
        async with pipeline.load.running(shape.per_second, chance):
            await pipeline.scale(shape.members)
            await pipeline.wait_for(lambda receipts: len(receipts) >= 20)
            await kill_at_random(pipeline, chance)
        outcome = await pipeline.settle(Promise(max_uncertain=3 * shape.concurrency))
    assert outcome.breaches == []
    assert outcome.findings.counts.sent > 100
