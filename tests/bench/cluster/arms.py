"""The three sides of a real run: the same pipeline, scaled by Tocsin, by KEDA + HPA, by nobody at the maximum. Pure.

KEDA scales the pipeline in mode Manual, through /scale, as docs/scaling.md says; the operator carries the number to the
Deployment. So all three are the same Deployment by the same builder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.cluster.traces import (
    CONCURRENCY,
    COOLDOWN_SECONDS,
    LOOK_BACK_SECONDS,
    PARTITIONS,
    TERMS,
    list_recipients,
)
from bench.compare import FLOOR
from pipelines import build_pipeline

TOCSIN, KEDA = "tocsin", "keda"
POLICIES = (TOCSIN, KEDA, FLOOR)
FAST, SLOW = "fast", "slow"
"""The channels: one answers after DELAY_MS, the other holds on for as long as a webhook may take."""
SLOW_DELAY_MS = 110_000
SLOW_TIMEOUT_SECONDS = 120
USERS = "recipients"
RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


@dataclass(frozen=True, slots=True)
class Arm:
    """One side in one trace."""

    trace: str
    policy: str

    @property
    def name(self) -> str:
        """Return what its pipeline, its topic and its group are called."""
        return f"{self.trace}-{self.policy}"

    @property
    def deployment(self) -> str:
        """Return the Deployment of its consumers."""
        return f"{self.name}-consumer"

    @property
    def first_replicas(self) -> int:
        """Return how many pods it starts with."""
        return TERMS.max_replicas if self.policy == FLOOR else TERMS.min_replicas


def build_arm(arm: Arm, *, brokers: str, fast_url: str, slow_url: str) -> dict[str, Any]:
    """Return the arm's pipeline."""
    scaling: dict[str, Any] = {
        "minReplicas": TERMS.min_replicas,
        "maxReplicas": TERMS.max_replicas,
        "maxLagSeconds": int(TERMS.max_lag_seconds),
        "downWindowSeconds": LOOK_BACK_SECONDS,
        "cooldownSeconds": COOLDOWN_SECONDS,
    }
    channels = [
        {"name": FAST, "type": "Webhook", "webhook": {"url": fast_url}},
        {"name": SLOW, "type": "Webhook", "webhook": {"url": slow_url, "timeoutSeconds": SLOW_TIMEOUT_SECONDS}},
    ]
    return build_pipeline(
        {
            "spec.kafka.bootstrapServers": [brokers],
            "spec.kafka.topic": {"name": arm.name, "partitions": PARTITIONS},
            "spec.kafka.consumerGroup": arm.name,
            "spec.users.configMapRef.name": USERS,
            "spec.ingestion.replicas": 0,
            "spec.consumer.replicas": arm.first_replicas,
            "spec.consumer.scaling": {**scaling, "mode": "Auto" if arm.policy == TOCSIN else "Manual"},
            "spec.consumer.concurrency": CONCURRENCY,
            "spec.consumer.channels": channels,
            "spec.consumer.resources": RESOURCES,
            "spec.logging.level": "warning",
        },
        name=arm.name,
    )


def build_users() -> dict[str, Any]:
    """Return the ConfigMap of all recipients."""
    lines = [f'"{recipient}": {{name: Ada}}' for recipient in list_recipients()]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": USERS},
        "data": {"users.yaml": "\n".join(lines)},
    }
