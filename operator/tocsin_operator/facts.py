"""What the cluster says of a pipeline's workloads, cut down to what decisions need.

Raw Deployments and Pods stop here: everything behind works on these frozen facts, and a cache of them stays small
where a cache of objects would not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """One Deployment: what it should be and how far it has come."""

    name: str
    resource_version: str
    generation: int
    observed_generation: int
    desired: int
    replicas: int
    ready: int
    updated: int
    available: int
    replica_failure: str
    """Why the controller cannot create pods, "" where it can."""
    replicas_owners: frozenset[str]
    """The field managers that own spec.replicas."""

    @property
    def is_rolled_out(self) -> bool:
        """Every pod is of the newest template, and every one of them is available."""
        is_seen = self.observed_generation >= self.generation
        return is_seen and self.updated == self.replicas == self.available == self.desired

    @property
    def is_serving(self) -> bool:
        """Some pod can do the role's work."""
        return self.available > 0


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod, as far as it explains why it is not ready."""

    name: str
    role: str
    age_seconds: float
    is_ready: bool
    is_terminating: bool
    restarts: int
    waiting_reason: str
    waiting_message: str
    last_exit_code: int | None
    last_exit_reason: str
    last_words: str
    unschedulable: str
    mount_failure: str = ""


def parse_deployment(body: Mapping[str, Any]) -> DeploymentFacts:
    """Return the facts of a Deployment."""
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    failure = _find_condition(status, "ReplicaFailure")
    return DeploymentFacts(
        name=metadata["name"],
        resource_version=metadata.get("resourceVersion", ""),
        generation=metadata.get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        desired=spec.get("replicas", 1),
        replicas=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        updated=status.get("updatedReplicas", 0),
        available=status.get("availableReplicas", 0),
        replica_failure=failure.get("message", "") if failure.get("status") == "True" else "",
        replicas_owners=_find_replicas_owners(metadata.get("managedFields", [])),
    )


def parse_pod(body: Mapping[str, Any], *, now: datetime) -> PodFacts:
    """Return the facts of a pod."""
    metadata, status = body["metadata"], body.get("status", {})
    role = (metadata.get("labels") or {}).get("app.kubernetes.io/component", "")
    # By name: a mesh or an agent may have put its own container beside ours.
    container: Mapping[str, Any] = next(
        (each for each in status.get("containerStatuses", []) if each.get("name") == role), {}
    )
    waiting = container.get("state", {}).get("waiting", {})
    ended = container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated") or {}
    scheduled = _find_condition(status, "PodScheduled")
    return PodFacts(
        name=metadata["name"],
        role=role,
        age_seconds=(now - datetime.fromisoformat(metadata["creationTimestamp"])).total_seconds(),
        is_ready=_find_condition(status, "Ready").get("status") == "True",
        is_terminating="deletionTimestamp" in metadata,
        restarts=container.get("restartCount", 0),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        last_exit_code=ended.get("exitCode"),
        last_exit_reason=ended.get("reason", ""),
        last_words=ended.get("message", "").strip(),
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
    )


def _find_condition(status: Mapping[str, Any], condition_type: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions", []) if each.get("type") == condition_type), {})


def _find_replicas_owners(managed_fields: list[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(
        each.get("manager", "") for each in managed_fields if "f:replicas" in each.get("fieldsV1", {}).get("f:spec", {})
    )
