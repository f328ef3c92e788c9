"""The pods' ServiceAccount: an identity for policies and meshes, without a token for the Kubernetes API.

The data plane never speaks to the API server, so a pod that is broken into holds nothing to speak with.
"""

from __future__ import annotations

from typing import Any

from tocsin_operator.children.naming import build_metadata, name_account
from tocsin_operator.model import Pipeline


def build_account(pipeline: Pipeline) -> dict[str, Any]:
    """Return the ServiceAccount both Deployments run as."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": build_metadata(pipeline, name_account(pipeline)),
        "automountServiceAccountToken": False,
    }
