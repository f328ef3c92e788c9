"""How many pods a role runs where a human, and not the scaler, says so.

Pure. Ingestion where `ingestion.scaling.mode` is Manual, consumers where `consumer.scaling.mode` is Manual or Advisory;
a suspended pipeline runs none. What is decided here goes through /scale under the scaler's name, as the scaler's own
decisions do, so that replicas have one owner whoever decides.
"""

from __future__ import annotations

from tocsin_operator.children.naming import Role
from tocsin_operator.facts import DeploymentFacts
from tocsin_operator.model import ConsumerScalingSpec, IngestionScalingSpec, Pipeline

OWNER_MODES = frozenset({"Manual", "Advisory"})


def decide_replicas(pipeline: Pipeline, role: Role, deployment: DeploymentFacts) -> int | None:
    """Return the replicas a role must have, None where that is the scaler's business."""
    fixed = find_fixed(pipeline, role)
    if fixed is not None:
        return fixed
    scaling = _find_scaling(pipeline, role)
    # A pipeline that resumes starts here; from then on the scaler knows better.
    return scaling.min_replicas if deployment.desired == 0 and scaling.min_replicas > 0 else None


def decide_first_replicas(pipeline: Pipeline, role: Role) -> int:
    """Return the replicas of a Deployment that is made now: what is fixed, else what the scaler last wanted."""
    fixed = find_fixed(pipeline, role)
    if fixed is not None:
        return fixed
    scaling = _find_scaling(pipeline, role)
    last = int(pipeline.status.get(role, {}).get("desiredReplicas", 0))
    return min(max(last, scaling.min_replicas), scaling.max_replicas)


def find_fixed(pipeline: Pipeline, role: Role) -> int | None:
    """Return the replicas that the resource says, None where the scaler decides."""
    if pipeline.spec.suspend:
        return 0
    if role == "ingestion":
        return pipeline.spec.ingestion.replicas if pipeline.spec.ingestion.scaling.mode == "Manual" else None
    return pipeline.spec.consumer.replicas if pipeline.spec.consumer.scaling.mode in OWNER_MODES else None


def _find_scaling(pipeline: Pipeline, role: Role) -> IngestionScalingSpec | ConsumerScalingSpec:
    return pipeline.spec.ingestion.scaling if role == "ingestion" else pipeline.spec.consumer.scaling
