"""The Service clients post to and listen at. Consumers have none: nobody calls them; metrics are read pod by pod."""

from __future__ import annotations

from typing import Any

from tocsin_operator.children.config import INGESTION_PORT
from tocsin_operator.children.naming import build_metadata, build_selector, name_workload
from tocsin_operator.model import Pipeline


def build_service(pipeline: Pipeline) -> dict[str, Any]:
    """Return the ingestion Service; its type is left to the user's Ingress or Gateway in front of it."""
    port = {
        "name": "http",
        "port": INGESTION_PORT,
        "targetPort": "http",
        "protocol": "TCP",
        "appProtocol": "http",
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(pipeline, name_workload(pipeline, "ingestion"), "ingestion"),
        "spec": {"type": "ClusterIP", "selector": build_selector(pipeline, "ingestion"), "ports": [port]},
    }


def build_endpoint(pipeline: Pipeline) -> str:
    """Return the URL of the Service inside the cluster."""
    return f"http://{name_workload(pipeline, 'ingestion')}.{pipeline.namespace}.svc:{INGESTION_PORT}"
