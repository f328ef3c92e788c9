"""The arithmetic of `make bench-scaling`: what counts against whom."""

from __future__ import annotations

from typing import NoReturn

import pytest

from bench.compare import FLOOR, Job, Result, compare
from bench.scaling import measure_cluster
from tocsin_cli.simulate.run import Score


def score(over: int, replica_seconds: int = 100, actions: int = 10, moves: int = 50) -> Result:
    return Result(Score(over, 40, replica_seconds, actions, moves, 0), 1_000)


RESULTS = {
    Job("step", "tocsin", 1): score(15, 60, 2, 10),
    Job("step", "keda", 1): score(30),
    Job("step", FLOOR, 1): score(10),
    Job("spike", "tocsin", 1): score(40, 80, 2, 10),
    Job("spike", "keda", 1): score(20),
    Job("spike", FLOOR, 1): score(0),
}


def test_what_nobody_can_keep_counts_against_nobody() -> None:
    assert compare(RESULTS, "tocsin", "keda", ["step"])["over_promise"] == 0.25


def test_ratios_are_of_sums_over_traces() -> None:
    ratios = compare(RESULTS, "tocsin", "keda", ["step", "spike"])
    assert ratios == {
        "over_promise": 1.125,
        "replica_seconds": 0.7,
        "actions": 0.2,
        "moves": 0.2,
        "worst_trace_points": 2.0,
    }


def test_a_peer_that_missed_nothing_gives_no_ratio() -> None:
    results = {**RESULTS, Job("step", "keda", 1): score(10)}
    assert compare(results, "tocsin", "keda", ["step"])["over_promise"] is None


def test_without_a_cluster_there_is_no_figure_and_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TOCSIN_TEST_CLUSTER", raising=False)
    assert measure_cluster(None) is None
    assert "no cluster was offered: set TOCSIN_TEST_CLUSTER=1 and KUBECONFIG" in capsys.readouterr().err


def test_a_cluster_that_breaks_takes_no_simulated_figure_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the node went away")

    monkeypatch.setattr("bench.scaling.run_traces", break_down)
    assert measure_cluster(None) is None
    said = capsys.readouterr().err
    assert "the node went away" in said
    assert "NOTHING IS MEASURED ON A CLUSTER" in said
