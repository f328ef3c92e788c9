"""What the watches told: pipelines, and how far their children are from what was applied.

Fed by events alone and shared by the reconciler and the scaler. kopf's own indices were refused: they deadlock at
start where workers are fewer than objects. A child is remembered as a fingerprint (and a Deployment as its facts), so
that a look at a pipeline whose children are as they were applied costs no request at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tocsin_operator.children.naming import Role, find_pipeline_key, name_workload
from tocsin_operator.facts import DeploymentFacts, parse_deployment
from tocsin_operator.model import Pipeline, parse_pipeline


class ChildID(NamedTuple):
    """Which child."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Child:
    """A child as last seen."""

    pipeline_key: str
    fingerprint: str
    resource_version: str
    deployment: DeploymentFacts | None


@dataclass(frozen=True, slots=True)
class Applied:
    """What was sent for a child, what it became, and when (seconds)."""

    digest: str
    fingerprint: str
    at_seconds: float


@dataclass(slots=True)
class Cache:
    """The operator's memory of the cluster. It is only ever behind, never ahead, and a resync heals it."""

    pipelines: dict[str, Pipeline] = field(default_factory=dict)
    _children: dict[ChildID, Child] = field(default_factory=dict)
    _applied: dict[ChildID, Applied] = field(default_factory=dict)

    def observe_pipeline(self, event_type: str | None, body: Mapping[str, Any]) -> str | None:
        """Take in an event about a pipeline; return its key if it deserves a look.

        News of its status alone do not: the operator itself writes it.
        A pipeline that is being deleted is gone: its children are the garbage collector's. Raise PipelineError for
        an object that is no pipeline of this version.
        """
        metadata = body["metadata"]
        key = f"{metadata.get('namespace')}/{metadata.get('name')}"
        if event_type == "DELETED" or metadata.get("deletionTimestamp"):
            return key if self.pipelines.pop(key, None) else None
        pipeline = parse_pipeline(body)
        before = self.pipelines.get(key)
        if before is not None and _is_older(pipeline.resource_version, before.resource_version):
            return None
        self.pipelines[key] = pipeline
        is_news = before is None or (before.uid, before.generation) != (pipeline.uid, pipeline.generation)
        return key if is_news or event_type is None else None

    def observe_child(self, event_type: str | None, body: Mapping[str, Any]) -> str | None:
        """Take in an event about a child, or an answer to a write; return the key of its pipeline if it has one."""
        identity = identify(body)
        key = find_pipeline_key(body)
        if event_type == "DELETED" or key is None:
            gone = self._children.pop(identity, None)
            return key or (gone.pipeline_key if gone else None)
        seen = self._children.get(identity)
        if seen is None or not _is_older(body["metadata"].get("resourceVersion", ""), seen.resource_version):
            self._children[identity] = _remember(key, body)
        return key

    def knows(self, identity: ChildID) -> bool:
        """Return whether the child was seen and not seen to go."""
        return identity in self._children

    def find_deployment(self, pipeline: Pipeline, role: Role) -> DeploymentFacts | None:
        """Return the facts of a role's Deployment, None while there is none."""
        child = self._children.get(ChildID("Deployment", pipeline.namespace, name_workload(pipeline, role)))
        return child.deployment if child else None

    def record_applied(self, body: Mapping[str, Any], answer: Mapping[str, Any], *, now: float) -> None:
        """Remember that applying `body` made `answer`."""
        self.observe_child("MODIFIED", answer)
        self._applied[identify(body)] = Applied(digest(body), _fingerprint(answer), now)

    def is_current(self, body: Mapping[str, Any], *, now: float, max_age_seconds: float) -> bool:
        """Return whether `body` was applied not long ago and the child has not moved since."""
        identity = identify(body)
        applied, child = self._applied.get(identity), self._children.get(identity)
        if applied is None or child is None or now - applied.at_seconds > max_age_seconds:
            return False
        return (applied.digest, applied.fingerprint) == (digest(body), child.fingerprint)

    def forget(self, key: str) -> None:
        """Forget a pipeline that is gone and all that was known of its children."""
        self.pipelines.pop(key, None)
        gone = [identity for identity, child in self._children.items() if child.pipeline_key == key]
        for identity in gone:
            del self._children[identity]
            self._applied.pop(identity, None)


def identify(body: Mapping[str, Any]) -> ChildID:
    """Return which child an object is."""
    return ChildID(body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"])


def digest(value: object) -> str:
    """Return a short name for a value made of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _remember(key: str, body: Mapping[str, Any]) -> Child:
    return Child(
        pipeline_key=key,
        fingerprint=_fingerprint(body),
        resource_version=body["metadata"].get("resourceVersion", ""),
        deployment=parse_deployment(body) if body["kind"] == "Deployment" else None,
    )


def _fingerprint(body: Mapping[str, Any]) -> str:
    """Return what moves when somebody changes a child, and does not when only its status moves.

    Kinds without a generation have no busy status either, so their resourceVersion serves.
    """
    metadata = body["metadata"]
    version = metadata.get("generation") or metadata.get("resourceVersion")
    return digest([metadata.get("uid"), version, metadata.get("labels"), metadata.get("ownerReferences")])


def _is_older(version: str, seen: str) -> bool:
    """Return whether an object is an older version than the one seen: answers and watches overtake each other."""
    return version.isdecimal() and seen.isdecimal() and int(version) < int(seen)
