"""Disruption budgets: a node drain takes one pod of a role at a time.

`maxUnavailable: 1` rather than `minAvailable`, which would block the drain of a role that runs a single pod. Pods that
are not ready anyway may always be evicted: a budget must not keep a broken pod on a node.
"""

from __future__ import annotations

from typing import Any

from tocsin_operator.children.naming import Role, build_metadata, build_selector, name_workload
from tocsin_operator.model import Pipeline


def build_disruption_budget(pipeline: Pipeline, role: Role) -> dict[str, Any]:
    """Return the PodDisruptionBudget of a role."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": build_metadata(pipeline, name_workload(pipeline, role), role),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": build_selector(pipeline, role)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
