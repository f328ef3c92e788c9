from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from tocsin_core.errors import TopicMissing
from tocsin_ingestion.problems import KAFKA_REFUSED, KINDS, UNKNOWN_USER, Problem
from tocsin_ingestion.report import Reporter
from tocsin_ingestion.sent import Accepted


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(clock: Clock) -> Reporter:
    return Reporter(topic="orders", clock=clock)


@pytest.fixture
def lines() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def told(lines: list[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    return [line for line in lines if line["event"] == "notifications refused"]


def unknown_user(user: str = "9") -> Problem:
    return Problem(UNKNOWN_USER, f"toID: no user has the id {user!r}")


def test_the_first_refusal_of_a_kind_is_told_at_once(reporter: Reporter, lines: list[MutableMapping[str, Any]]) -> None:
    reporter.report([unknown_user()], "trace")
    (line,) = told(lines)
    assert (line["log_level"], line["reason"], line["count"]) == ("info", "unknown-user", 1)
    assert (line["trace_id"], line["topic"]) == ("trace", "orders")


def test_a_flood_of_refusals_is_one_line_per_interval_with_their_count(
    reporter: Reporter, clock: Clock, lines: list[MutableMapping[str, Any]]
) -> None:
    for number in range(100):
        reporter.report([unknown_user(str(number))], f"trace-{number}")
    clock.now = 10.0
    reporter.flush()
    assert [line["count"] for line in told(lines)] == [1, 99]
    assert told(lines)[-1]["trace_id"] == "trace-99"


def test_a_flush_before_the_interval_is_over_says_nothing_unless_it_is_the_last(
    reporter: Reporter, lines: list[MutableMapping[str, Any]]
) -> None:
    for _ in range(3):
        reporter.report([unknown_user()], "trace")
    reporter.flush()
    assert len(told(lines)) == 1
    reporter.flush(is_final=True)
    assert [line["count"] for line in told(lines)] == [1, 2]


def test_our_own_trouble_is_a_warning_with_the_advice(
    reporter: Reporter, lines: list[MutableMapping[str, Any]]
) -> None:
    problem = Problem(KAFKA_REFUSED, "Nothing was stored.")
    problem.__cause__ = TopicMissing("no such topic", advice="create it")
    reporter.report([problem], "trace")
    (line,) = told(lines)
    assert (line["log_level"], line["cause"], line["advice"]) == ("warning", "no such topic", "create it")


def test_an_accepted_notification_is_told_at_debug_only(
    reporter: Reporter, lines: list[MutableMapping[str, Any]]
) -> None:
    reporter.report([Accepted("an-id", partition=3, offset=14)], "trace")
    (line,) = lines
    assert line["log_level"] == "debug"
    assert (line["notification_id"], line["trace_id"], line["partition"], line["offset"]) == ("an-id", "trace", 3, 14)


def test_every_outcome_is_counted(reporter: Reporter) -> None:
    def read(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def observe() -> tuple[float, float, float]:
        return (
            read("tocsin_ingestion_accepted_total"),
            read("tocsin_ingestion_replayed_total"),
            read("tocsin_ingestion_refused_total", reason="unknown-user"),
        )

    before = observe()
    reporter.report([Accepted("a"), Accepted("b", is_replay=True), unknown_user(), unknown_user()], "trace")
    assert [now - then for now, then in zip(observe(), before, strict=True)] == [1, 1, 2]


def test_every_reason_is_there_before_it_happens() -> None:
    for kind in KINDS:
        assert REGISTRY.get_sample_value("tocsin_ingestion_refused_total", {"reason": kind.name}) is not None
