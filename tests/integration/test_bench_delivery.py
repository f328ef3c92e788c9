"""The delivery benchmark as a user runs it, made so small that its numbers mean nothing: it must run and tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmark import run_benchmark

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

TINY = "--rounds 1 --seconds 0.5 --isolation-rounds 1 --backlog 500"  # and messages enough for a loop without a sink


@pytest.mark.skipif(shutil.which("go") is None or shutil.which("gcc") is None, reason="needs go and gcc")
def test_the_last_line_tells_every_ratio() -> None:
    done = run_benchmark("bench-delivery", TINY)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == ["vs_poll_loop_0ms", "vs_poll_loop_50ms", "vs_kafka_go_50ms", "isolated_p99_ratio"]
    assert all(value > 0 for value in result.values())
    assert done.stdout.count("| poll-loop ") == 7  # on four sinks, and in the ratios of the three that are HTTP


def test_without_go_it_says_so_and_is_no_pass(tmp_path: Path) -> None:
    for program in ("make", "python3", "bash", "env"):
        path = shutil.which(program)
        assert path is not None
        (tmp_path / program).symlink_to(path)
    done = run_benchmark("bench-delivery", TINY, PATH=str(tmp_path))
    assert done.returncode == 2
    assert "`go` is not on PATH" in done.stderr
    assert "vs_poll_loop" not in done.stdout
