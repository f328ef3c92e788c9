"""The event loop's own counters, as a scrape sees them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, generate_latest

from tocsin_core.metrics import LoopCounter


@pytest.fixture
def by_result() -> Iterator[LoopCounter]:
    counter = LoopCounter("test_asked", "Asked", label="result", values=("hit", "miss"))
    yield counter
    REGISTRY.unregister(counter)


def test_every_value_is_there_from_the_start_and_counts_up(by_result: LoopCounter) -> None:
    by_result.counts["hit"] += 1
    by_result.inc(2, label="other")
    text = generate_latest(REGISTRY).decode()
    assert "# TYPE test_asked_total counter" in text
    shown = {
        value: REGISTRY.get_sample_value("test_asked_total", {"result": value}) for value in ("hit", "miss", "other")
    }
    assert shown == {"hit": 1, "miss": 0, "other": 2}


def test_a_number_that_is_asked_for_is_as_fresh_as_the_look_at_it() -> None:
    counter = LoopCounter("test_busy", "Busy")
    readings = iter((0.5, 1.0))
    counter.set_function(lambda: next(readings))
    assert REGISTRY.get_sample_value("test_busy_total") == 0.5
    assert REGISTRY.get_sample_value("test_busy_total") == 1.0
    REGISTRY.unregister(counter)


def test_a_counter_without_a_label_is_one_number() -> None:
    counter = LoopCounter("test_accepted", "Accepted")
    counter.inc()
    counter.inc(4)
    assert REGISTRY.get_sample_value("test_accepted_total") == 5
    REGISTRY.unregister(counter)
