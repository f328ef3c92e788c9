"""The reconciler's part of a pipeline's status: a pure function of what was observed.

    Ready         somebody can post and somebody delivers: every role has an available pod and nothing blocks it
    Progressing   Deployments are still on their way to what the spec says
    Degraded      something is wrong that its owner should mend; the first problem gives the reason
    TopicDurable  an acknowledged record is on more than one broker
    Authenticated ingestion asks who calls

KafkaReachable, ScalingActive, `kafka` and `scaling` are the scaler's; neither side ever writes the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tocsin_operator.children.naming import ROLES, Role, render_selector
from tocsin_operator.children.services import build_endpoint
from tocsin_operator.conditions import Claim, build_condition, select_owned
from tocsin_operator.facts import DeploymentFacts
from tocsin_operator.model import Pipeline
from tocsin_operator.problems import Problem
from tocsin_operator.replicas import OWNER_MODES, find_fixed

OWNED_CONDITIONS = ("Ready", "Progressing", "Degraded", "TopicDurable", "Authenticated")
OWNED_FIELDS = ("observedGeneration", "ingestion", "consumer")
IDLE: Mapping[Role, str] = {"ingestion": "nothing is accepted over HTTP", "consumer": "nothing is delivered"}
"""What it means that a role runs no pods."""


@dataclass(frozen=True, slots=True)
class World:
    """All that the reconciler found out about one pipeline; `warnings` want mending, too, and stop nothing."""

    deployments: Mapping[Role, DeploymentFacts | None]
    problems: tuple[Problem, ...]
    durability: Claim
    warnings: tuple[Problem, ...] = ()


def build_status(pipeline: Pipeline, world: World, *, now: datetime) -> dict[str, Any]:
    """Return the status the reconciler owns, whole."""
    claims = (
        claim_ready(pipeline, world),
        claim_progressing(pipeline, world),
        claim_degraded(world),
        world.durability,
        claim_authenticated(pipeline),
    )
    previous = pipeline.status.get("conditions", [])
    ingestion = _build_replicas(world.deployments["ingestion"])
    consumer = _build_replicas(world.deployments["consumer"])
    return {
        "observedGeneration": pipeline.generation,
        "ingestion": {**ingestion, "endpoint": build_endpoint(pipeline)},
        "consumer": {**consumer, "selector": render_selector(pipeline, "consumer")},
        "conditions": [
            build_condition(claim, generation=pipeline.generation, previous=previous, now=now) for claim in claims
        ],
    }


def is_status_current(pipeline: Pipeline, status: dict[str, Any]) -> bool:
    """Return whether the pipeline's status, as last seen, already says what `status` says."""
    return select_owned(pipeline.status, fields=OWNED_FIELDS, conditions=OWNED_CONDITIONS) == status


def claim_ready(pipeline: Pipeline, world: World) -> Claim:
    """Return whether notifications are accepted and delivered."""
    if pipeline.spec.suspend:
        return Claim("Ready", False, "Suspended", "spec.suspend is true: no pods run; set it to false to resume")
    blocking = next((problem for problem in world.problems if problem.is_blocking), None)
    if blocking is not None:
        return Claim("Ready", False, blocking.reason, blocking.message)
    pods = _describe_pods(world)
    if all(_is_serving(pipeline, role, world.deployments[role]) for role in ROLES):
        return Claim("Ready", True, "PipelineServing", f"{pods}; {_describe_auth(pipeline)}")
    if world.problems:
        return Claim("Ready", False, world.problems[0].reason, world.problems[0].message)
    stopped = [role for role in ROLES if find_fixed(pipeline, role) == 0]
    if stopped:
        reasons = " and ".join(f"spec.{role}.replicas is 0: {IDLE[role]}" for role in stopped)
        return Claim("Ready", False, "ScaledToZero", f"{reasons}; set it to 1 or more")
    return Claim("Ready", False, "PodsStarting", pods)


def claim_progressing(pipeline: Pipeline, world: World) -> Claim:
    """Return whether Deployments are on their way."""
    moving = [role for role in ROLES if (facts := world.deployments[role]) is None or not facts.is_rolled_out]
    if moving:
        return Claim("Progressing", True, "RollingOut", f"{_describe_pods(world)}; on the way: {', '.join(moving)}")
    if pipeline.spec.suspend:
        return Claim("Progressing", False, "Suspended", "every pod is stopped")
    return Claim("Progressing", False, "RolledOut", "every pod is of the newest template and available")


def claim_degraded(world: World) -> Claim:
    """Return whether something wants mending, all of it in the message."""
    found = (*world.problems, *world.warnings)
    if not found:
        return Claim("Degraded", False, "AsExpected", "nothing to mend")
    return Claim("Degraded", True, found[0].reason, "; also: ".join(problem.message for problem in found))


def claim_authenticated(pipeline: Pipeline) -> Claim:
    """Return whether ingestion asks who calls. What the spec says; a mode without its keys shows in Ready."""
    auth = pipeline.spec.ingestion.auth
    if auth.mode == "None":
        fix = "set spec.ingestion.auth.mode to APIKey or JWT, or let only those reach it who may"
        return Claim("Authenticated", False, "AuthModeNone", f"{_describe_auth(pipeline)}; {fix}")
    return Claim("Authenticated", True, f"AuthMode{auth.mode}", _describe_auth(pipeline))


def _is_serving(pipeline: Pipeline, role: Role, facts: DeploymentFacts | None) -> bool:
    """Return whether the role does its work; consumers that rest because nothing waits do theirs."""
    if facts is None:
        return False
    scaling = pipeline.spec.consumer.scaling
    rests = role == "consumer" and scaling.min_replicas == 0 and scaling.mode not in OWNER_MODES
    return facts.is_serving or (rests and facts.desired == 0)


def _describe_pods(world: World) -> str:
    counts = [
        f"{role} {facts.available}/{facts.desired}" if (facts := world.deployments[role]) else f"{role} not made yet"
        for role in ROLES
    ]
    return f"pods available: {', '.join(counts)}"


def _describe_auth(pipeline: Pipeline) -> str:
    auth, endpoint = pipeline.spec.ingestion.auth, build_endpoint(pipeline)
    rights = "post and listen as any user" if pipeline.has_streams else "post"
    if auth.keys_secret_ref is not None:
        return f"auth.mode APIKey: who holds a key of Secret {auth.keys_secret_ref.name} may {rights} at {endpoint}"
    if auth.jwt is not None:
        scope = f" with scope {auth.jwt.send_scope}" if auth.jwt.send_scope else ""
        return f"auth.mode JWT: who holds a token of {auth.jwt.issuer}{scope} may post at {endpoint}"
    return f"auth.mode {auth.mode}: whoever reaches {endpoint} may {rights}"


def _build_replicas(facts: DeploymentFacts | None) -> dict[str, Any]:
    if facts is None:
        return {"replicas": 0, "readyReplicas": 0, "desiredReplicas": 0}
    return {"replicas": facts.replicas, "readyReplicas": facts.ready, "desiredReplicas": facts.desired}
