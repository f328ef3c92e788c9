"""One look at a pipeline: what its topics are warned of shows in the status, and makes no pod unready."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines import Changes, build_stored
from tocsin_core.admin import TopicFacts
from tocsin_operator.cache import Cache
from tocsin_operator.children.deployments import Image, build_deployment
from tocsin_operator.children.naming import ROLES
from tocsin_operator.conditions import find_condition
from tocsin_operator.model import Pipeline
from tocsin_operator.problems import Problem
from tocsin_operator.reconcile import MENDING_SECONDS, MOVING_SECONDS, Reconciler
from tocsin_operator.topics import TopicReport

SHORT = Problem("RetentionTooShort", "too short")
FACTS = TopicFacts("orders", 12, 3, 2, {})


class API:
    """Remembers the status; nobody's pods are listed."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[dict[str, Any]]:
        del kind, namespace, selectors
        return []

    async def apply_status(self, pipeline: Pipeline, status: dict[str, Any], **_: str) -> dict[str, Any]:
        self.status = status
        return {**build_body(pipeline.name), "status": status}

    async def emit_event(self, pipeline: Pipeline, **_: str) -> None:
        """Take the event."""


class Topics:
    """Topics of which everything is known."""

    def __init__(self, report: TopicReport) -> None:
        self.report = report

    async def ensure(self, pipeline: Pipeline, *, wait_seconds: float) -> TopicReport:
        del pipeline, wait_seconds
        return self.report

    def take_news(self, key: str) -> list[Any]:
        del key
        return []


class Workloads:
    """Children that are as they should be."""

    async def apply(self, pipeline: Pipeline) -> list[Problem]:
        del pipeline
        return []


class Room:
    """A reconciler in a cluster where each pipeline has one pod for each role."""

    def __init__(self, *warnings: Problem, available: int = 1) -> None:
        self.api, self.cache, self.available = API(), Cache(), available
        topics: Any = Topics(TopicReport(facts=FACTS, warnings=warnings))
        api: Any = self.api
        workloads: Any = Workloads()
        self.reconciler = Reconciler(api, self.cache, topics, workloads, lambda: datetime.now(UTC), 600.0)

    def add(self, name: str, changes: Changes) -> Pipeline:
        self.cache.observe_pipeline("ADDED", build_body(name, changes))
        pipeline = self.cache.pipelines[f"shop/{name}"]
        for role in ROLES:
            body = build_deployment(pipeline, role, Image("i"))
            counts = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": self.available}
            body["spec"]["replicas"] = 1
            self.cache.observe_child("ADDED", {**body, "status": counts})
        return pipeline

    def claim(self, kind: str) -> tuple[str, str]:
        condition = find_condition(self.api.status["conditions"], kind)
        assert condition is not None
        return condition["status"], condition["reason"]


def build_body(name: str, changes: Changes | None = None) -> dict[str, Any]:
    return build_stored(
        {"metadata.name": name, "spec.users": {"http": {"url": "http://users/{id}"}}, **(changes or {})}
    )


async def test_what_topics_are_warned_of_degrades_a_pipeline_that_stays_ready_and_is_looked_at_again_soon() -> None:
    room = Room(SHORT)
    room.add("orders", {})
    assert await room.reconciler.reconcile("shop/orders") == MENDING_SECONDS
    assert room.claim("Degraded") == ("True", "RetentionTooShort")
    assert room.claim("Ready") == ("True", "PipelineServing")


async def test_what_topics_are_warned_of_is_not_why_pods_that_start_are_not_ready() -> None:
    room = Room(SHORT, available=0)
    room.add("orders", {})
    assert await room.reconciler.reconcile("shop/orders") == MOVING_SECONDS
    assert room.claim("Ready") == ("False", "PodsStarting")
    assert room.claim("Degraded") == ("True", "RetentionTooShort")


async def test_a_pipeline_without_trouble_is_left_alone_for_a_while() -> None:
    room = Room()
    room.add("orders", {})
    assert await room.reconciler.reconcile("shop/orders") == pytest.approx(600, rel=0.2)
    assert room.claim("Degraded") == ("False", "AsExpected")


async def test_two_pipelines_with_one_topic_both_say_so_until_one_of_them_is_gone() -> None:
    room = Room(SHORT)
    room.add("orders", {})
    room.add("again", {})
    for name, other in (("orders", "again"), ("again", "orders")):
        await room.reconciler.reconcile(f"shop/{name}")
        assert room.claim("Degraded") == ("True", "TopicShared")
        assert room.claim("Ready") == ("True", "PipelineServing")
        condition = find_condition(room.api.status["conditions"], "Degraded")
        assert condition is not None
        assert f"topic orders is that of shop/{other}, too" in condition["message"]
        assert "; also: too short" in condition["message"]
    room.cache.observe_pipeline("DELETED", build_body("orders"))
    await room.reconciler.reconcile("shop/again")
    assert room.claim("Degraded") == ("True", "RetentionTooShort")
