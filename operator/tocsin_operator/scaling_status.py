"""What the scaler tells a cluster's people: status, events, metrics.

Status is written when its meaning changed and not when a number flickered; an event says each action and each
condition that turned false; metrics take every pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from tocsin_operator.apply import SCALER, KubernetesAPI
from tocsin_operator.cache import Cache
from tocsin_operator.conditions import build_condition, find_condition, select_owned
from tocsin_operator.errors import ObjectMissing, WriteConflict
from tocsin_operator.model import Pipeline
from tocsin_operator.scaling.model import Decision
from tocsin_operator.scaling.ports import Report
from tocsin_operator.scaling.report import CONDITION_TYPES, STATUS_FIELDS, build_claims, build_status, is_news
from tocsin_operator.scaling_metrics import ScalingMetrics

QUIET_REASONS = frozenset({"Advisory", "Manual", "Suspended", "DeploymentMissing"})

log = structlog.get_logger(__name__)


class Written(NamedTuple):
    """What the scaler last said about a pipeline, and when."""

    uid: str
    status: dict[str, Any]
    at_seconds: float


class StatusPublisher:
    """Status when its meaning changed, an event per action and per turn of a condition, metrics every time."""

    def __init__(self, *, api: KubernetesAPI, cache: Cache, metrics: ScalingMetrics) -> None:
        self._api = api
        self._cache = cache
        self._metrics = metrics
        self._written: dict[str, Written] = {}

    async def publish(self, report: Report) -> None:
        """Tell what one pass found out."""
        self._forget_others()
        pipeline = self._cache.pipelines.get(report.target.key)
        if pipeline is None or pipeline.uid != report.target.uid:
            return
        self._metrics.observe(report)
        before = self._recall(pipeline)
        status = build_owned_status(report, pipeline, before.status)
        since_seconds = report.time_seconds - before.at_seconds
        if is_news(status, before.status, report.target.config, seconds_since_write=since_seconds):
            await self._write(pipeline, status, report.time_seconds)
            await self._tell_turns(pipeline, before.status, status)
        if report.has_acted and report.decision is not None:
            await self._tell_action(pipeline, report.decision)

    def _recall(self, pipeline: Pipeline) -> Written:
        written = self._written.get(pipeline.key)
        if written is not None and written.uid == pipeline.uid:
            return written
        return Written(pipeline.uid, select_owned(pipeline.status, fields=STATUS_FIELDS, conditions=CONDITION_TYPES), 0)

    async def _write(self, pipeline: Pipeline, status: dict[str, Any], time_seconds: float) -> None:
        try:
            await self._api.apply_status(pipeline, status, field_manager=SCALER)
        except (ObjectMissing, WriteConflict):
            log.info("pipeline is gone", pipeline=pipeline.key)
            return
        self._written[pipeline.key] = Written(pipeline.uid, status, time_seconds)

    async def _tell_action(self, pipeline: Pipeline, decision: Decision) -> None:
        reason, message = describe_action(decision)
        log.info("scaled", pipeline=pipeline.key, reason=decision.reason.value, message=message)
        await self._emit(pipeline, reason, message)

    async def _tell_turns(self, pipeline: Pipeline, before: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        for kind in CONDITION_TYPES:
            turn = describe_turn(find_condition(before.get("conditions", ()), kind), status["conditions"], kind)
            if turn is not None:
                await self._emit(pipeline, turn[0], turn[1], is_warning=True)

    async def _emit(self, pipeline: Pipeline, reason: str, message: str, *, is_warning: bool = False) -> None:
        await self._api.emit_event(
            pipeline,
            reason=reason,
            message=message,
            level="Warning" if is_warning else "Normal",
            action="Scale",
            reporting_controller=SCALER,
        )

    def _forget_others(self) -> None:
        """Forget pipelines that are gone; hardly ever is one, and this runs for each of them in each pass."""
        keys = self._cache.pipelines.keys()
        if not self._written.keys() <= keys:
            self._written = {key: written for key, written in self._written.items() if key in keys}
        self._metrics.forget_others(keys)


def build_owned_status(report: Report, pipeline: Pipeline, previous: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of the status that `tocsin-scaler` owns: fields it leaves out would be deleted."""
    now = datetime.fromtimestamp(report.time_seconds, UTC)
    conditions = [
        build_condition(claim, generation=pipeline.generation, previous=previous.get("conditions", ()), now=now)
        for claim in build_claims(report)
    ]
    return {**build_status(report, previous), "conditions": conditions}


def describe_action(decision: Decision) -> tuple[str, str]:
    """Return the reason and the message of the event for a change of replicas."""
    before, after = decision.inputs.replicas, decision.replicas
    reason = "ConsumersScaledOut" if after > before else "ConsumersScaledIn"
    return reason, f"from {before} to {after}: {decision.message} ({decision.reason.value})"


def describe_turn(
    before: Mapping[str, Any] | None, conditions: Iterable[Mapping[str, Any]], kind: str
) -> tuple[str, str] | None:
    """Return the warning for a condition that turned false for a new reason, None where there is nothing to warn of."""
    after = find_condition(conditions, kind)
    if after is None or after["status"] != "False" or after["reason"] in QUIET_REASONS:
        return None
    is_same = before is not None and (before.get("status"), before.get("reason")) == ("False", after["reason"])
    return None if is_same else (after["reason"], after["message"])
