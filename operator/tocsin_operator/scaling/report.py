"""What a pass says to people: four conditions, a status, and whether any of it means something new.

Pure. The status belongs to field manager `tocsin-scaler`; numbers that only flicker are not news, or an idle fleet
would write all day. What must survive a restart (the last action, the learned capacity) is part of the same status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tocsin_core.errors import (
    KafkaUnavailable,
    NotAuthenticated,
    NotAuthorized,
    TocsinError,
    TopicMissing,
)
from tocsin_operator.conditions import Claim
from tocsin_operator.scaling.channels import leave_out
from tocsin_operator.scaling.model import ChannelInputs, Config, Hold, Inputs, LimitedBy, Reason
from tocsin_operator.scaling.ports import Report
from tocsin_operator.scaling.record import add_to_history, build_record, render_seconds
from tocsin_operator.scaling.verdict import name_partitions

CONDITION_TYPES = ("ScalingActive", "KafkaReachable", "PartitionsMoving", "ChannelsMoving")
STATUS_FIELDS = ("kafka", "scaling")
NUMBERS_SECONDS = 60.0  # lag numbers are written at most this often
BUCKET_SECONDS = 10.0  # and a change of their magnitude at most this often
SHOWN_PARTITIONS = 5
STABLE_FIELDS = (
    "limitedBy",
    "reason",
    "capacitySource",
    "advisedReplicas",
    "stuckPartitions",
    "hotPartitions",
    "heldChannels",
)
INACTIVE = {Reason.SUSPENDED, Reason.MANUAL, Reason.METRICS_UNAVAILABLE}
FAILURE_REASONS: tuple[tuple[type[TocsinError], str], ...] = (
    (NotAuthenticated, "NotAuthenticated"),
    (NotAuthorized, "NotAuthorized"),
    (TopicMissing, "TopicMissing"),
    (KafkaUnavailable, "BrokerUnreachable"),
)


def build_claims(report: Report) -> tuple[Claim, ...]:
    """Return what the pass says of ScalingActive, KafkaReachable, PartitionsMoving and ChannelsMoving."""
    return _claim_scaling(report), _claim_kafka(report), _claim_partitions(report), _claim_channels(report)


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
    if decision.limited_by is LimitedBy.ADVISORY:
        return Claim(kind, False, "Advisory", decision.message)
    return Claim(kind, decision.reason not in INACTIVE, decision.reason.value, decision.message)


def _claim_partitions(report: Report) -> Claim:
    """Return whether every partition is served as well as pods can serve it."""
    kind, decision, observation = "PartitionsMoving", report.decision, report.observation
    if decision is None or observation is None or not decision.is_trusted:
        return Claim(kind, None, "NotObserved", "the partitions' offsets are not known")
    stuck, hot = decision.inputs.stuck_partitions, decision.inputs.hot_partitions
    if stuck:
        served = leave_out(observation, decision.inputs.held_channels)
        positions = {each.partition: each.position for each in served.partitions}
        where = ", ".join(f"{each} at offset {positions[each]}" for each in stuck[:SHOWN_PARTITIONS])
        message = (
            f"topic {report.target.topic}, partition {where}: nothing there was finished for a while although other "
            "partitions move; look at the record at that offset and at the consumer that holds the partition"
        )
        return Claim(kind, False, "PartitionStuck", message)
    if hot:
        message = (
            f"topic {report.target.topic}, {name_partitions(hot)}: more arrives there than one consumer can do; "
            "a more even key or more partitions would help, more consumers would not"
        )
        return Claim(kind, False, "PartitionHot", message)
    return Claim(kind, True, "AllMoving", "no partition stands still alone, and none gets more than a consumer can do")


def _claim_channels(report: Report) -> Claim:
    """Return whether every channel is served as well as pods can serve it."""
    kind, decision = "ChannelsMoving", report.decision
    if decision is None or not decision.is_trusted:
        return Claim(kind, None, "NotObserved", "where the channels stand is not known")
    held = [each for each in decision.inputs.channels if each.hold is not None]
    if not held:
        return Claim(kind, True, "AllMoving", "no channel is held back alone")
    is_provider = all(each.hold is Hold.PROVIDER for each in held)
    reason = "ChannelHeldBack" if is_provider else "ChannelStuck"
    return Claim(kind, False, reason, f"{'; '.join(map(_describe_hold, held))}. No consumer is added for that")


def _describe_hold(channel: ChannelInputs) -> str:
    """Return what holds a channel, without numbers that move: a condition's message is written when it changes."""
    if channel.hold is Hold.PROVIDER:
        return f"channel {channel.name} is held back by its provider, which is down or throttles: nothing is lost"
    return (
        f"channel {channel.name} finishes nothing while others do: look at the consumers' log lines with its name, "
        "and at its provider"
    )


def build_status(report: Report, previous: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status fields of this pass; what it could not find out stays as it was."""
    status = {name: previous[name] for name in STATUS_FIELDS if name in previous}
    if report.decision is None or report.state is None:
        return status
    if report.decision.is_trusted:
        status["kafka"] = _build_kafka(report.decision.inputs, report.time_seconds)
    scaling = build_record(report.decision, report.state)
    before = previous.get("scaling") or {}
    if report.has_acted:
        scaling["history"] = add_to_history(before, report.decision, report.time_seconds)
    elif before.get("history"):
        scaling["history"] = before["history"]
    last_seconds = report.time_seconds if report.has_acted else report.state.last_scale_seconds
    if last_seconds is not None:
        scaling["lastScaleTime"] = render_seconds(last_seconds)
    return {**status, "scaling": scaling}


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
    channels = [
        {"name": each.name, "lag": each.lag, "lagSeconds": round(each.lag_seconds, 1)} for each in inputs.channels
    ]
    return {
        "partitions": inputs.partitions,
        "totalLag": inputs.total_lag,
        "maxPartitionLag": inputs.max_partition_lag,
        "lagSeconds": round(inputs.lag_seconds or 0.0, 1),
        "observedTime": render_seconds(time_seconds),
        **({"channels": channels} if channels else {}),
    }


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
    stable = tuple(scaling.get(name) for name in STABLE_FIELDS)
    return bucket, len(str(records)) if records else 0, sorted(reasons), stable


def _numbers(status: Mapping[str, Any]) -> object:
    kafka, scaling = dict(status.get("kafka") or {}), dict(status.get("scaling") or {})
    return {**kafka, "observedTime": None}, {**scaling, "message": None, "candidates": None}
