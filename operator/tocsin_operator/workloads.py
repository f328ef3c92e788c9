"""Applying a pipeline's children: what is missing is made, what drifted is repaired, what is as it was costs nothing.

A child that exists under our name, with neither our labels nor our pipeline for an owner, is somebody else's and is
left alone: forcing it would take it over, and its owner reference would have it deleted with the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from tocsin_operator.apply import OPERATOR, KubernetesAPI
from tocsin_operator.cache import Cache, identify
from tocsin_operator.children import build_children
from tocsin_operator.children.deployments import Image
from tocsin_operator.children.naming import LABEL_COMPONENT, Role, find_pipeline_key
from tocsin_operator.errors import AccessForbidden, ObjectMissing, ObjectRefused
from tocsin_operator.facts import DeploymentFacts, parse_deployment
from tocsin_operator.model import Pipeline
from tocsin_operator.problems import Problem
from tocsin_operator.replicas import decide_first_replicas, decide_replicas


@dataclass(frozen=True, slots=True)
class Workloads:
    """Applies children; `clock` in seconds, and a child applied longer ago than `resync_seconds` is applied again."""

    api: KubernetesAPI
    cache: Cache
    image: Image
    clock: Callable[[], float]
    resync_seconds: float

    async def apply(self, pipeline: Pipeline) -> list[Problem]:
        """Apply all children; return what the API server refused for good. Raise what may pass (KubernetesFailure)."""
        problems = []
        for body in build_children(pipeline, self.image):
            try:
                problem = await self._apply_child(pipeline, body)
            except (AccessForbidden, ObjectRefused) as error:
                problem = Problem("ChildRefused", f"{body['kind']} {body['metadata']['name']}: {error}")
            problems += [problem] if problem else []
        return problems

    async def _apply_child(self, pipeline: Pipeline, body: dict[str, Any]) -> Problem | None:
        if not self.cache.knows(identify(body)):
            found = await self._look(body)
            if found is not None and not _is_ours(found, pipeline):
                what = f"{body['kind']} {body['metadata']['name']}"
                fix = f"rename the pipeline, or delete it: kubectl -n {pipeline.namespace} delete {what.lower()}"
                return Problem("NameTaken", f"{what} exists and is not this pipeline's; {fix}")
        if body["kind"] == "Deployment":
            await self._apply_replicas(pipeline, body)
        if not self.cache.is_current(body, now=self.clock(), max_age_seconds=self.resync_seconds):
            answer = await self.api.apply(body, field_manager=OPERATOR)
            self.cache.record_applied(body, answer, now=self.clock())
        return None

    async def _look(self, body: dict[str, Any]) -> dict[str, Any] | None:
        metadata = body["metadata"]
        try:
            found = await self.api.read(body["kind"], metadata["namespace"], metadata["name"])
        except ObjectMissing:
            return None
        self.cache.observe_child(None, found)
        return found

    async def _apply_replicas(self, pipeline: Pipeline, body: dict[str, Any]) -> None:
        """Give replicas to the scaler before the Deployment is applied without them, and set what is not its business.

        A Deployment is made with its replicas, or it would start one pod and then the others. They are handed over at
        once: a manager that leaves out what it alone owned resets it.
        """
        role = cast("Role", body["metadata"]["labels"][LABEL_COMPONENT])
        facts = self.cache.find_deployment(pipeline, role) or await self._create(pipeline, role, body)
        wanted = decide_replicas(pipeline, role, facts)
        if OPERATOR in facts.replicas_owners or wanted not in (None, facts.desired):
            goal = facts.desired if wanted is None else wanted
            version = facts.resource_version if wanted is None else ""
            await self.api.apply_scale(pipeline.namespace, facts.name, goal, resource_version=version)

    async def _create(self, pipeline: Pipeline, role: Role, body: dict[str, Any]) -> DeploymentFacts:
        spec = {**body["spec"], "replicas": decide_first_replicas(pipeline, role)}
        answer = await self.api.apply({**body, "spec": spec}, field_manager=OPERATOR)
        # Nobody has seen its resourceVersion yet, and the controllers are about to move it.
        return replace(parse_deployment(answer), resource_version="")


def _is_ours(found: dict[str, Any], pipeline: Pipeline) -> bool:
    """Return whether an object is the pipeline's: by its owner, or by labels left from an earlier one of its name."""
    owners = found["metadata"].get("ownerReferences", [])
    return find_pipeline_key(found) == pipeline.key or any(owner.get("uid") == pipeline.uid for owner in owners)
