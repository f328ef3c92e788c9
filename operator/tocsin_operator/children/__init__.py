"""Everything a pipeline consists of in Kubernetes, as pure functions of the pipeline.

The list is always whole and always in the order in which its parts need each other; applying it again is how drift is
repaired. Nothing here reads a cluster: what a builder does not know from the pipeline, its object does not depend on.
"""

from __future__ import annotations

from typing import Any

from tocsin_operator.children.accounts import build_account
from tocsin_operator.children.config import build_config_map
from tocsin_operator.children.deployments import Image, build_deployment
from tocsin_operator.children.disruption import build_disruption_budget
from tocsin_operator.children.naming import ROLES
from tocsin_operator.children.network import build_network_policy
from tocsin_operator.children.services import build_service
from tocsin_operator.model import Pipeline


def build_children(pipeline: Pipeline, image: Image) -> list[dict[str, Any]]:
    """Return all children of a pipeline, Deployments last."""
    return [
        build_config_map(pipeline),
        build_account(pipeline),
        *[build_network_policy(pipeline, role) for role in ROLES],
        *[build_disruption_budget(pipeline, role) for role in ROLES],
        build_service(pipeline),
        *[build_deployment(pipeline, role, image) for role in ROLES],
    ]
