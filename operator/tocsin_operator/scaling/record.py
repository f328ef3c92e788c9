"""What a decision leaves in the status: for `tocsin explain` to tell, and for the next process to go on from.

The status rather than an endpoint of the operator's: whoever may see a pipeline may know why it has so many pods, the
record outlives the process that made it, and a replica that does not lead has it too. It is written with an action or
with other news and never for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tocsin_operator.scaling.capacity import remember_capacity
from tocsin_operator.scaling.model import Candidate, Ceiling, ChannelProgress, Config, Decision, Hold, State

HISTORY_KEPT = 5
CANDIDATES_KEPT = 12
PARTITIONS_KEPT = 32


def build_record(decision: Decision, state: State) -> dict[str, Any]:
    """Return the decision's part of the status, and what has to outlive this process."""
    inputs = decision.inputs
    numbers = {
        "drainSeconds": decision.drain_seconds,
        "arrivalPerSecond": inputs.arrival_per_second,
        "capacityPerSecond": inputs.capacity_per_second,
        "startupSeconds": state.startup_seconds,
    }
    lists = {
        "heldChannels": [
            {"name": each.name, "reason": each.hold.value} for each in inputs.channels if each.hold is not None
        ],
        "stuckPartitions": list(inputs.stuck_partitions[:PARTITIONS_KEPT]),
        "hotPartitions": list(inputs.hot_partitions[:PARTITIONS_KEPT]),
        "candidates": build_candidates(decision),
    }
    advised = {} if decision.advised_replicas is None else {"advisedReplicas": decision.advised_replicas}
    return {
        "limitedBy": decision.limited_by.value,
        "reason": decision.reason.value,
        "message": decision.message,
        "capacitySource": inputs.capacity_source,
        **advised,
        **{name: round_number(value) for name, value in numbers.items() if value is not None},
        **{name: values for name, values in lists.items() if values},
        **_build_ceiling(state.ceiling),
    }


def add_to_history(previous: Mapping[str, Any], decision: Decision, time_seconds: float) -> list[dict[str, Any]]:
    """Return the changes of a status with this one before them."""
    entry = {
        "time": render_seconds(time_seconds),
        "replicasBefore": decision.inputs.replicas,
        "replicasAfter": decision.replicas,
        "reason": decision.reason.value,
        "limitedBy": decision.limited_by.value,
        "message": decision.message,
        "candidates": build_candidates(decision),
    }
    return [entry, *previous.get("history", ())][:HISTORY_KEPT]


def build_candidates(decision: Decision) -> list[dict[str, Any]]:
    """Return the counts that were weighed, those next to the chosen one if they are many."""
    chosen = decision.replicas if decision.advised_replicas is None else decision.advised_replicas
    nearest = sorted(decision.candidates, key=lambda each: abs(each.replicas - chosen))[:CANDIDATES_KEPT]
    return [_build_candidate(each) for each in sorted(nearest, key=lambda each: each.replicas)]


def restore_state(status: Mapping[str, Any], config: Config) -> State:
    """Return what an earlier process left: its last change, capacity, start-up, a ceiling, and channels held back."""
    scaling = status.get("scaling") or {}
    known, source, last = scaling.get("capacityPerSecond"), scaling.get("capacitySource"), scaling.get("lastScaleTime")
    startup = scaling.get("startupSeconds")
    return State(
        windows=remember_capacity(float(known), config) if known and source in {"Observed", "Measured"} else (),
        measured_per_second=float(known) if known and source == "Measured" else None,
        startup_seconds=None if startup is None else float(startup),
        last_scale_seconds=parse_seconds(last) if last else None,
        ceiling=_parse_ceiling(scaling.get("downstream")),
        channels=_parse_channels(scaling.get("heldChannels") or ()),
    )


def round_number(value: float) -> float:
    """Return the value with three significant digits: enough to act on, and it does not flicker."""
    if value == 0 or not math.isfinite(value):
        return 0.0
    return round(value, 2 - math.floor(math.log10(abs(value))))


def render_seconds(seconds: float) -> str:
    """Return a moment as Kubernetes writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_seconds(text: str) -> float:
    """Return a moment as a decision counts it."""
    return datetime.fromisoformat(text).timestamp()


def _build_candidate(candidate: Candidate) -> dict[str, Any]:
    numbers = {"utilisation": candidate.utilisation, "drainSeconds": candidate.drain_seconds}
    known = {name: round_number(value) for name, value in numbers.items() if value is not None}
    refusal = {"refusal": candidate.refusal} if candidate.refusal else {}
    return {"replicas": candidate.replicas, **known, **refusal}


def _parse_channels(held: Iterable[Mapping[str, Any]]) -> tuple[ChannelProgress, ...]:
    """Return the channels that were held back; a reason of another release is forgotten, and found again."""
    known = {each.value: each for each in Hold}
    return tuple(
        ChannelProgress(name=each["name"], hold=known[each["reason"]]) for each in held if each.get("reason") in known
    )


def _build_ceiling(ceiling: Ceiling | None) -> dict[str, Any]:
    if ceiling is None:
        return {}
    return {
        "downstream": {
            "perSecond": round_number(ceiling.per_second),
            "replicas": ceiling.replicas,
            "holdSeconds": ceiling.hold_seconds,
            "untilTime": render_seconds(ceiling.until_seconds),
        }
    }


def _parse_ceiling(body: Mapping[str, Any] | None) -> Ceiling | None:
    """Return a ceiling as it was written; one that does not read as such is forgotten, and found again."""
    if not body:
        return None
    try:
        return Ceiling(
            per_second=float(body["perSecond"]),
            replicas=int(body["replicas"]),
            hold_seconds=float(body["holdSeconds"]),
            until_seconds=parse_seconds(body["untilTime"]),
        )
    except (KeyError, TypeError, ValueError, msgspec.ValidationError):
        return None
