"""Names, labels and the owner of a pipeline's children, so that every builder and every reader agree on them.

Names are a function of the pipeline's name alone: applying twice finds the same object, where a random suffix would
make a second one. Labels are Kubernetes' recommended ones; `managed-by` is also what the operator watches by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tocsin_operator.model import GROUP, KIND, VERSION, Pipeline

Role = Literal["ingestion", "consumer"]
ROLES: tuple[Role, Role] = ("ingestion", "consumer")

LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "tocsin-operator"
ANNOTATION_CONFIG_HASH = f"{GROUP}/config-hash"


def name_workload(pipeline: Pipeline, role: Role) -> str:
    """Return the name that a role's Deployment, Service, budget and network policy share."""
    return f"{pipeline.name}-{role}"


def name_config(pipeline: Pipeline) -> str:
    """Return the name of the ConfigMap that holds config.yaml."""
    return f"{pipeline.name}-config"


def name_account(pipeline: Pipeline) -> str:
    """Return the name of the pods' ServiceAccount."""
    return f"{pipeline.name}-tocsin"


def build_selector(pipeline: Pipeline, role: Role) -> dict[str, str]:
    """Return the labels that choose a role's pods; they never change, because a Deployment's selector cannot."""
    return {"app.kubernetes.io/name": "tocsin", LABEL_INSTANCE: pipeline.name, LABEL_COMPONENT: role}


def render_selector(pipeline: Pipeline, role: Role) -> str:
    """Return the selector as text, as `kubectl get pods -l` and the scale subresource take it."""
    return ",".join(f"{key}={value}" for key, value in sorted(build_selector(pipeline, role).items()))


def build_labels(pipeline: Pipeline, role: Role | None = None) -> dict[str, str]:
    """Return the labels of a child, or of a role's pods."""
    labels = {
        "app.kubernetes.io/name": "tocsin",
        "app.kubernetes.io/part-of": "tocsin",
        LABEL_INSTANCE: pipeline.name,
        LABEL_MANAGED_BY: MANAGED_BY,
    }
    return labels if role is None else {**labels, LABEL_COMPONENT: role}


def build_metadata(pipeline: Pipeline, name: str, role: Role | None = None) -> dict[str, Any]:
    """Return a child's metadata. Its owner is the pipeline: deleting that one deletes the child.

    `blockOwnerDeletion` stays unset: where its admission plugin runs, it would demand rights on finalizers.
    """
    owner = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "name": pipeline.name,
        "uid": pipeline.uid,
        "controller": True,
    }
    return {
        "name": name,
        "namespace": pipeline.namespace,
        "labels": build_labels(pipeline, role),
        "ownerReferences": [owner],
    }


def find_pipeline_key(body: Mapping[str, Any]) -> str | None:
    """Return the key of the pipeline that a child or one of its pods belongs to, None for what is not ours."""
    metadata = body.get("metadata", {})
    labels = metadata.get("labels") or {}
    if labels.get(LABEL_MANAGED_BY) != MANAGED_BY or LABEL_INSTANCE not in labels:
        return None
    return f"{metadata.get('namespace', '')}/{labels[LABEL_INSTANCE]}"
