"""What a pass says to people: two conditions, a status, and whether any of it means something new.

Pure. The status belongs to field manager `tocsin-scaler`; numbers that only flicker are not news, or an idle fleet
would write all day. What must survive a restart (the last action, the learned capacity) is part of the same status.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tocsin_core.errors import (
    KafkaUnavailable,
    NotAuthenticated,
    NotAuthorized,
    TocsinError,
    TopicMissing,
)
from tocsin_operator.conditions import Claim
from tocsin_operator.scaling.capacity import remember_capacity
from tocsin_operator.scaling.model import Config, Decision, Inputs, Reason, State
from tocsin_operator.scaling.ports import Report

CONDITION_TYPES = ("ScalingActive", "KafkaReachable")
STATUS_FIELDS = ("kafka", "scaling")
NUMBERS_SECONDS = 60.0  # lag numbers are written at most this often
BUCKET_SECONDS = 10.0  # and a change of their magnitude at most this often
INACTIVE = {Reason.SUSPENDED, Reason.MANUAL, Reason.METRICS_UNAVAILABLE}
FAILURE_REASONS: tuple[tuple[type[TocsinError], str], ...] = (
    (NotAuthenticated, "NotAuthenticated"),
    (NotAuthorized, "NotAuthorized"),
    (TopicMissing, "TopicMissing"),
    (KafkaUnavailable, "BrokerUnreachable"),
)


def build_claims(report: Report) -> tuple[Claim, Claim]:
    """Return what the pass says of ScalingActive and KafkaReachable."""
    return _claim_scaling(report), _claim_kafka(report)


def explain_error(error: Exception) -> str:
    """Return an error's text with its advice."""
    advice = getattr(error, "advice", "")
    return f"{error}; {advice}" if advice else str(error)


def name_failure(error: Exception) -> str:
    """Return the reason that a condition gives for a Kafka failure; an error may bring its own."""
    own = getattr(error, "reason", "")
    return own or next((name for kind, name in FAILURE_REASONS if isinstance(error, kind)), "KafkaError")


def _claim_kafka(report: Report) -> Claim:
    if report.kafka_failure is not None:
        return Claim("KafkaReachable", False, name_failure(report.kafka_failure), explain_error(report.kafka_failure))
    return Claim("KafkaReachable", True, "OffsetsRead", "the topic's and the group's offsets are read")


def _claim_scaling(report: Report) -> Claim:
    kind, decision = "ScalingActive", report.decision
    if report.failure is not None:
        return Claim(kind, False, type(report.failure).__name__, explain_error(report.failure))
    if decision is None:
        return Claim(kind, False, "DeploymentMissing", "the consumers' Deployment does not exist yet")
    return Claim(kind, decision.reason not in INACTIVE, decision.reason.value, decision.message)


def build_status(report: Report, previous: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status fields of this pass; what it could not find out stays as it was."""
    status = {name: previous[name] for name in STATUS_FIELDS if name in previous}
    if report.decision is None or report.state is None:
        return status
    if report.decision.is_trusted:
        status["kafka"] = _build_kafka(report.decision.inputs, report.time_seconds)
    scaling = _build_scaling(report.decision, report.decision.inputs)
    last_seconds = report.time_seconds if report.has_acted else report.state.last_scale_seconds
    if last_seconds is not None:
        scaling["lastScaleTime"] = _render_time(last_seconds)
    return {**status, "scaling": scaling}


def restore_state(status: Mapping[str, Any], config: Config) -> State:
    """Return what an earlier process left in the status: when it last scaled, and the capacity it had observed."""
    scaling = status.get("scaling") or {}
    observed = scaling.get("capacityPerSecond") if scaling.get("capacitySource") == "Observed" else None
    last = scaling.get("lastScaleTime")
    return State(
        windows=remember_capacity(float(observed), config) if observed else (),
        last_scale_seconds=_parse_time(last) if last else None,
    )


def is_news(
    status: Mapping[str, Any], previous: Mapping[str, Any], config: Config, *, seconds_since_write: float
) -> bool:
    """Return whether the status means something new: what turned at once, the rest no faster than it can be read."""
    if _turns(status) != _turns(previous):
        return True
    if seconds_since_write >= BUCKET_SECONDS and _meaning(status, config) != _meaning(previous, config):
        return True
    return seconds_since_write >= NUMBERS_SECONDS and _numbers(status) != _numbers(previous)


def _build_kafka(inputs: Inputs, time_seconds: float) -> dict[str, Any]:
    return {
        "partitions": inputs.partitions,
        "totalLag": inputs.total_lag,
        "maxPartitionLag": inputs.max_partition_lag,
        "lagSeconds": round(inputs.lag_seconds or 0.0, 1),
        "observedTime": _render_time(time_seconds),
    }


def _build_scaling(decision: Decision, inputs: Inputs) -> dict[str, Any]:
    numbers = {
        "drainSeconds": decision.drain_seconds,
        "arrivalPerSecond": inputs.arrival_per_second,
        "capacityPerSecond": inputs.capacity_per_second,
    }
    known = {name: _round(value) for name, value in numbers.items() if value is not None}
    return {
        "limitedBy": decision.limited_by.value,
        "reason": decision.reason.value,
        "message": decision.message,
        "capacitySource": inputs.capacity_source,
        **known,
    }


def _round(value: float) -> float:
    """Return the value with three significant digits: enough to act on, and it does not flicker."""
    if value == 0:
        return 0.0
    return round(value, 2 - math.floor(math.log10(abs(value))))


def _turns(status: Mapping[str, Any]) -> object:
    """Return what is written at once: an action, another topic, another truth of a condition."""
    kafka, scaling = status.get("kafka") or {}, status.get("scaling") or {}
    truths = [(each["type"], each["status"], each.get("observedGeneration")) for each in status.get("conditions", ())]
    return kafka.get("partitions"), scaling.get("lastScaleTime"), sorted(truths)


def _meaning(status: Mapping[str, Any], config: Config) -> object:
    """Return what is written soon: other reasons, and lag of another magnitude, in seconds or in records."""
    kafka, scaling = status.get("kafka") or {}, status.get("scaling") or {}
    seconds, records = kafka.get("lagSeconds") or 0.0, kafka.get("totalLag") or 0
    bucket = sum(seconds > limit for limit in (config.quiet_seconds, config.max_lag_seconds))
    reasons = [(each["type"], each["reason"]) for each in status.get("conditions", ())]
    stable = tuple(scaling.get(name) for name in ("limitedBy", "reason", "capacitySource"))
    return bucket, len(str(records)) if records else 0, sorted(reasons), stable


def _numbers(status: Mapping[str, Any]) -> object:
    kafka, scaling = dict(status.get("kafka") or {}), dict(status.get("scaling") or {})
    return {**kafka, "observedTime": None}, {**scaling, "message": None}


def _render_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
