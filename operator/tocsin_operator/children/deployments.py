"""The Deployments of a pipeline: one for ingestion, one for consumers.

They are built without `spec.replicas`: replicas have another owner (field manager `tocsin-scaler`, through /scale),
and a builder that named them would reset what the scaler decided. The pod template carries a hash of what the role
reads of config.yaml, so that pods roll when that changed; the users' ConfigMap is not hashed, because services read
users again while they run.
"""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

from tocsin_core.consumer_config import SETTLE_SECONDS
from tocsin_operator.children.config import (
    CONSUMER_DRAIN_SECONDS,
    HEALTH_PORT,
    INGESTION_DRAIN_SECONDS,
    INGESTION_PORT,
    hash_service_config,
)
from tocsin_operator.children.mounts import build_environment, build_mounts, build_volumes
from tocsin_operator.children.naming import (
    ANNOTATION_CONFIG_HASH,
    Role,
    build_labels,
    build_metadata,
    build_selector,
    name_account,
    name_workload,
)
from tocsin_operator.model import Pipeline

USER_ID = 65_532  # the image's own unprivileged user
# Endpoints forget a pod a moment after it was told to stop; until then it must go on answering.
PRE_STOP_SECONDS = 5
MARGIN_SECONDS = 10
GRACE_SECONDS = {
    "ingestion": PRE_STOP_SECONDS + INGESTION_DRAIN_SECONDS + MARGIN_SECONDS,
    # A coordinator that stalls meanwhile is waited for: killed sooner, a consumer would leave its work uncommitted.
    "consumer": CONSUMER_DRAIN_SECONDS + ceil(SETTLE_SECONDS) + MARGIN_SECONDS,
}
COMMANDS = {"ingestion": "ingest", "consumer": "consume"}
# Memory is bounded because it cannot be throttled; CPU is not, because throttling shows up as lag.
DEFAULT_RESOURCES: dict[str, dict[str, str]] = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"memory": "512Mi"},
}


class Image(NamedTuple):
    """The image every pod runs: the operator's own, so that both speak the same config.yaml.

    `pull_secrets` are names of Secrets in each pipeline's own namespace: a pod can use no other's.
    """

    name: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


def build_deployment(pipeline: Pipeline, role: Role, image: Image) -> dict[str, Any]:
    """Return the Deployment of a role, without replicas."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(pipeline, name_workload(pipeline, role), role),
        "spec": {
            "selector": {"matchLabels": build_selector(pipeline, role)},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 300,
            # A new pod must be ready before an old one goes: a bad image or configuration then stops nothing.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": _build_template(pipeline, role, image),
        },
    }


def _build_template(pipeline: Pipeline, role: Role, image: Image) -> dict[str, Any]:
    return {
        "metadata": {
            "labels": build_labels(pipeline, role),
            "annotations": {ANNOTATION_CONFIG_HASH: hash_service_config(pipeline, role)},
        },
        "spec": {
            "serviceAccountName": name_account(pipeline),
            "automountServiceAccountToken": False,
            # Kubernetes' variables for every Service of the namespace would land among ours (TOCSIN_*).
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_SECONDS[role],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": _build_spread(pipeline, role),
            "containers": [_build_container(pipeline, role, image)],
            "volumes": build_volumes(pipeline, role),
            **({"imagePullSecrets": [{"name": name} for name in image.pull_secrets]} if image.pull_secrets else {}),
        },
    }


def _build_container(pipeline: Pipeline, role: Role, image: Image) -> dict[str, Any]:
    spec = pipeline.spec.ingestion if role == "ingestion" else pipeline.spec.consumer
    return {
        "name": role,
        "image": image.name,
        "imagePullPolicy": image.pull_policy,
        "args": [COMMANDS[role]],
        "env": build_environment(pipeline),
        "ports": _build_ports(role),
        "resources": spec.resources or DEFAULT_RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The last words of a crashing service reach the pipeline's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": build_mounts(pipeline, role),
        **_build_probes(),
        **({"lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}}} if role == "ingestion" else {}),
    }


def _build_ports(role: Role) -> list[dict[str, Any]]:
    health = {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"}
    posts = {"name": "http", "containerPort": INGESTION_PORT, "protocol": "TCP"}
    return [posts, health] if role == "ingestion" else [health]


def _build_probes() -> dict[str, Any]:
    alive = {"path": "/healthz", "port": "health"}
    ready = {"path": "/readyz", "port": "health"}
    return {
        "startupProbe": {"httpGet": alive, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {"httpGet": alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 3, "timeoutSeconds": 3, "failureThreshold": 2},
    }


def _build_spread(pipeline: Pipeline, role: Role) -> list[dict[str, Any]]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",  # a wish: a small cluster still runs every pod
            "labelSelector": {"matchLabels": build_selector(pipeline, role)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
