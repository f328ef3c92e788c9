"""The one place that writes to (and reads from) the Kubernetes API.

Server-side apply for everything: an object is sent whole, the server keeps what others own, repairs what drifted and
leaves resourceVersion alone when nothing changed, so that applying again is always safe. Plain dicts go in and come
out, because the builders are dicts and typed models would drop fields of newer servers. The official asyncio client
does credentials, TLS and connections; its generated methods (one per kind and verb) and its dynamic client (which
reads the whole discovery at start) are left aside for one small table of paths.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration
from kubernetes.aio.config import ConfigException

from tocsin_operator import metrics
from tocsin_operator.errors import APIUnavailable, translate_status
from tocsin_operator.model import GROUP, KIND, PLURAL, VERSION, Pipeline

OPERATOR = "tocsin-operator"
SCALER = "tocsin-scaler"
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=15)
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML; the server wants this name
NOTE_MAX_BYTES = 1_000  # the API server refuses notes of events above 1 KiB


class Resource(NamedTuple):
    """Where objects of a kind live."""

    group_version: str
    plural: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Return the URL path of one object, of its subresource, or of all objects of a namespace."""
        root = f"/apis/{self.group_version}" if "/" in self.group_version else f"/api/{self.group_version}"
        parts = (root, "namespaces", namespace, self.plural, name, subresource)
        return "/".join(part for part in parts if part)


RESOURCES = {
    KIND: Resource(f"{GROUP}/{VERSION}", PLURAL),
    "ConfigMap": Resource("v1", "configmaps"),
    "Event": Resource("events.k8s.io/v1", "events"),
    "Deployment": Resource("apps/v1", "deployments"),
    "NetworkPolicy": Resource("networking.k8s.io/v1", "networkpolicies"),
    "Pod": Resource("v1", "pods"),
    "PodDisruptionBudget": Resource("policy/v1", "poddisruptionbudgets"),
    "Secret": Resource("v1", "secrets"),
    "Service": Resource("v1", "services"),
    "ServiceAccount": Resource("v1", "serviceaccounts"),
}


class KubernetesAPI:
    """The API server, as far as the operator needs it. Every refusal is one of the errors of `errors.py`."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls) -> Self:
        """Connect with $KUBECONFIG where it is set, else with the pod's service account, else with ~/.kube/config."""
        configuration = Configuration()
        in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
        try:
            if in_cluster:
                config.load_incluster_config(client_configuration=configuration)
            else:
                path = os.environ.get("KUBECONFIG")
                await config.load_kube_config(config_file=path, client_configuration=configuration)
        except ConfigException as error:
            raise APIUnavailable(f"no way to the API server: {error}; set KUBECONFIG or run in a pod") from error
        client = ApiClient(configuration)
        client.user_agent = OPERATOR
        return cls(client)

    @property
    def client(self) -> ApiClient:
        """Return the client underneath, for what else of the official library needs one (the Lease)."""
        return self._client

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def apply(self, body: dict[str, Any], *, field_manager: str) -> dict[str, Any]:
        """Apply a whole object as `field_manager`, taking over fields that others claimed; return what it became."""
        metadata = body["metadata"]
        path = RESOURCES[body["kind"]].path(metadata["namespace"], metadata["name"])
        return await self._apply(path, body, field_manager)

    async def apply_status(self, pipeline: Pipeline, status: dict[str, Any], *, field_manager: str) -> dict[str, Any]:
        """Apply the part of the pipeline's status that `field_manager` owns; what it owned and left out disappears.

        Raise WriteConflict when the pipeline was deleted and made again since: its uid goes along.
        """
        path = RESOURCES[KIND].path(pipeline.namespace, pipeline.name, "status")
        metadata = {"name": pipeline.name, "namespace": pipeline.namespace, "uid": pipeline.uid}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "status": status}
        return await self._apply(path, body, field_manager)

    async def apply_scale(
        self, namespace: str, deployment: str, replicas: int, *, resource_version: str = ""
    ) -> dict[str, Any]:
        """Set a Deployment's replicas as `tocsin-scaler`; with `resource_version`, only if nothing changed since.

        Raise WriteConflict when something did: the decision was made on a world that is gone.
        """
        path = RESOURCES["Deployment"].path(namespace, deployment, "scale")
        metadata = {"name": deployment, "namespace": namespace}
        if resource_version:
            metadata["resourceVersion"] = resource_version
        spec = {"replicas": replicas}
        body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec}
        return await self._apply(path, body, SCALER)

    async def annotate_pod(self, namespace: str, name: str, annotations: dict[str, str]) -> dict[str, Any]:
        """Apply a pod's annotations as `tocsin-scaler`; what it set before and leaves out disappears."""
        metadata = {"name": name, "namespace": namespace, "annotations": annotations}
        return await self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}, field_manager=SCALER)

    async def read(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """Return one object. Raise ObjectMissing or AccessForbidden, whose texts name it."""
        return await self._request("GET", RESOURCES[kind].path(namespace, name))

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[dict[str, Any]]:
        """Return the objects of a namespace; selectors are `labelSelector` and `fieldSelector`."""
        answer = await self._request("GET", RESOURCES[kind].path(namespace), selectors)
        return list(answer.get("items", []))

    async def emit_event(
        self,
        pipeline: Pipeline,
        *,
        reason: str,
        message: str,
        level: Literal["Normal", "Warning"] = "Normal",
        action: str = "Reconcile",
        reporting_controller: str = OPERATOR,
    ) -> None:
        """Record that something happened to the pipeline, for `kubectl describe` and `kubectl events`."""
        regarding = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "name": pipeline.name,
            "namespace": pipeline.namespace,
            "uid": pipeline.uid,
        }
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{pipeline.name}.{time.time_ns():x}", "namespace": pipeline.namespace},
            "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "reportingController": f"{GROUP}/{reporting_controller}",
            "reportingInstance": os.environ.get("HOSTNAME", reporting_controller)[:128],
            "action": action,
            "reason": reason,
            "regarding": regarding,
            "note": message.encode()[:NOTE_MAX_BYTES].decode(errors="ignore"),
            "type": level,
        }
        path = RESOURCES["Event"].path(pipeline.namespace)
        await self._request("POST", path, body=body, content_type="application/json")

    async def _apply(self, path: str, body: dict[str, Any], field_manager: str) -> dict[str, Any]:
        query = {"fieldManager": field_manager, "force": "true"}
        return await self._request("PATCH", path, query, body=body, content_type=APPLY_PATCH)

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        *,
        body: dict[str, Any] | None = None,
        content_type: str = "",
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if content_type else {})
        what = f"{method} {path}"
        try:
            _, url, headers, sent, _ = await self._client.param_serialize(
                method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            url += f"?{urlencode(query)}" if query else ""
            answer = await self._client.call_api(method, url, headers, sent, _request_timeout=REQUEST_TIMEOUT)
            data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            metrics.api_requests.labels(method, "0").inc()
            reason = str(error) or type(error).__name__
            raise APIUnavailable(f"{what}: the API server does not answer: {reason}") from error
        except ApiException as error:
            raise translate_status(error.status or 0, f"{what}: {error.reason}") from error
        metrics.api_requests.labels(method, str(answer.status)).inc()
        return _parse(answer.status, data, what)


def _parse(status: int, data: bytes, what: str) -> dict[str, Any]:
    if not 200 <= status < 300:  # noqa: PLR2004 - HTTP's own
        raise translate_status(status, f"{what}: {_explain(data)} ({status})")
    return dict(json.loads(data))


def _explain(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data[:200].decode(errors="replace")
