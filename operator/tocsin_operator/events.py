"""Which transitions of conditions become Kubernetes events. Pure; a state that merely lasts never makes one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from tocsin_operator.conditions import find_condition, find_transitions

Level = Literal["Normal", "Warning"]
CALM_REASONS = {"Suspended", "ScaledToZero", "PodsStarting"}  # not ready, and nobody has to do anything about it


class Event(NamedTuple):
    """What `kubectl describe` will show."""

    level: Level
    reason: str
    message: str


def select_events(previous: Iterable[Mapping[str, Any]], conditions: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Return the events for what changed between two sets of conditions."""
    known = list(previous)
    events = []
    for moved in find_transitions(known, conditions):
        before = find_condition(known, moved.type)
        was_true = before is not None and before.get("status") == "True"
        event = _describe(moved.type, moved.status, moved.reason, moved.message, was_true=was_true)
        events += [event] if event else []
    return _drop_repetition(events)


def _describe(kind: str, status: str, reason: str, message: str, *, was_true: bool) -> Event | None:
    if (kind, status) == ("Ready", "True"):
        return Event("Normal", reason, message)
    if (kind, status) == ("Ready", "False") and (was_true or reason == "Suspended"):
        return Event("Normal" if reason in CALM_REASONS else "Warning", reason, message)
    if (kind, status) in {("Degraded", "True"), ("TopicDurable", "False")}:
        return Event("Warning", reason, message)
    if (kind, status) == ("Degraded", "False") and was_true:
        return Event("Normal", "Mended", message)
    return None


def _drop_repetition(events: list[Event]) -> list[Event]:
    """Return the events, one per reason: one cause often moves both Ready and Degraded."""
    return list({event.reason: event for event in reversed(events)}.values())[::-1]
