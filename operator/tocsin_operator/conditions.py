"""Conditions: what is true of a pipeline now, since when, why, and what to do about it.

Pure, and the time is passed in. `lastTransitionTime` moves only when `status` does, so that "not ready for an hour"
can be read from it whatever the reason went through meanwhile. Both writers of a pipeline's status (the reconciler and
the scaler) build theirs here; each compares and sends only its own part, because server-side apply deletes what a
manager owned and leaves out. A `phase` string was refused: it can say one thing at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

MESSAGE_MAX_CHARS = 4_096  # the API allows 32768; nobody reads them


class Claim(NamedTuple):
    """A condition before it has a history: what is claimed (None is Unknown), why, and in what words."""

    type: str
    is_true: bool | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition whose status or reason changed: worth an event."""

    type: str
    status: str
    reason: str
    message: str


def build_condition(
    claim: Claim, *, generation: int, previous: Iterable[Mapping[str, Any]], now: datetime
) -> dict[str, Any]:
    """Return the condition for a claim; `previous` are the conditions last seen in the status."""
    status = {True: "True", False: "False", None: "Unknown"}[claim.is_true]
    before = find_condition(previous, claim.type)
    is_unmoved = before is not None and before.get("status") == status and before.get("lastTransitionTime")
    return {
        "type": claim.type,
        "status": status,
        "reason": claim.reason,
        "message": claim.message[:MESSAGE_MAX_CHARS],
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if before and is_unmoved else render_time(now),
    }


def find_condition(conditions: Iterable[Mapping[str, Any]], condition_type: str) -> Mapping[str, Any] | None:
    """Return the condition of that type, None where there is none."""
    return next((each for each in conditions if each.get("type") == condition_type), None)


def select_owned(status: Mapping[str, Any], *, fields: Sequence[str], conditions: Sequence[str]) -> dict[str, Any]:
    """Return the part of a status that one writer owns, in the form it writes it: what to compare before a write."""
    owned = {name: status[name] for name in fields if name in status}
    mine = [dict(each) for each in status.get("conditions", ()) if each.get("type") in conditions]
    return {**owned, "conditions": sorted(mine, key=lambda each: conditions.index(each["type"]))}


def find_transitions(
    previous: Iterable[Mapping[str, Any]], conditions: Iterable[Mapping[str, Any]]
) -> tuple[Transition, ...]:
    """Return the conditions whose status or reason differs from before; a first visit moves all of them."""
    known = list(previous)
    return tuple(
        Transition(type=each["type"], status=each["status"], reason=each["reason"], message=each["message"])
        for each in conditions
        if _has_moved(find_condition(known, each["type"]), each)
    )


def render_time(moment: datetime) -> str:
    """Return a moment as Kubernetes writes it: UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _has_moved(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    return before is None or (before.get("status"), before.get("reason")) != (after["status"], after["reason"])
