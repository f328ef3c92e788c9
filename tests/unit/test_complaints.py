"""Complaints: said once in a while, with how often they were left unsaid."""

from __future__ import annotations

from typing import Any

from tocsin_core.complaints import Complaints


def test_the_same_trouble_is_said_once_per_interval_and_counted_meanwhile() -> None:
    now, said = [0.0], list[dict[str, Any]]()
    complaints = Complaints(lambda event, **fields: said.append({"event": event, **fields}), clock=lambda: now[0])
    for moment in (0.0, 1.0, 9.9, 10.0):
        now[0] = moment
        complaints.about("trouble", "why", topic="t")
    assert said == [
        {"event": "trouble", "reason": "why", "topic": "t"},
        {"event": "trouble", "reason": "why", "topic": "t", "times_unsaid": 2},
    ]


def test_another_reason_is_another_complaint() -> None:
    said: list[str] = []
    complaints = Complaints(lambda _event, *, reason: said.append(reason), clock=lambda: 0.0)
    complaints.about("trouble", "one")
    complaints.about("trouble", "two")
    assert said == ["one", "two"]


def test_what_is_remembered_is_bounded() -> None:
    complaints = Complaints(lambda *_, **__: None, clock=lambda: 0.0)
    for number in range(10_000):
        complaints.about("trouble", str(number))
    assert len(complaints._said) <= 256
