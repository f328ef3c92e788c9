"""The ingestion benchmark as a user runs it, made so small that its numbers mean nothing: it must run and tell."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmark import run_benchmark

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

TINY = "--rounds 1 --seconds 1 --pauses 1 --pause-rate 50"


@pytest.mark.skipif(shutil.which("go") is None or shutil.which("gcc") is None, reason="needs go and gcc")
def test_the_last_line_tells_every_ratio_and_that_nothing_was_lost() -> None:
    done = run_benchmark("bench-ingestion", TINY)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.pop("lost_after_pause") == 0
    assert len(result) == 5
    assert all(value > 0 for value in result.values())
    assert "pause 1 s: answers" in done.stdout
