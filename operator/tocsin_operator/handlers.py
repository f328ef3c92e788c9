"""The watches: the only module that imports kopf.

kopf lists, watches, reconnects and authenticates; every event becomes a line in the cache and a key in the queue, and
nothing else. Its state handlers, timers and daemons are left aside: they would write annotations and finalizers to
every pipeline and run a task for each. A watch that falls silent is kopf's to notice (the server sends a bookmark every
minute, and `inactivity_timeout` counts them); one that fails for good ends kopf, and with it the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import kopf
import structlog

from tocsin_operator import metrics
from tocsin_operator.cache import Cache
from tocsin_operator.children.naming import LABEL_MANAGED_BY, MANAGED_BY
from tocsin_operator.model import GROUP, PLURAL, VERSION, PipelineError
from tocsin_operator.queue import KeyQueue

LIST_CHUNK = 500
REQUEST_TIMEOUT_SECONDS = 30.0
CHILDREN = (
    ("", "v1", "configmaps"),
    ("", "v1", "serviceaccounts"),
    ("", "v1", "services"),
    ("apps", "v1", "deployments"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("policy", "v1", "poddisruptionbudgets"),
)

log = structlog.get_logger(__name__)


async def run_watches(cache: Cache, queue: KeyQueue, *, namespaces: list[str]) -> None:
    """Watch pipelines and their children, in `namespaces` or everywhere, until stopped by a signal or cancelled."""
    await kopf.operator(
        registry=build_registry(cache, queue),
        settings=build_settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
    )


def build_settings() -> kopf.OperatorSettings:
    """Return how kopf is to behave: silent, without discovery of what it was not told, patient with errors."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.chunk_size = LIST_CHUNK
    for child in CHILDREN:
        settings.watching.label_selectors[child] = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
    settings.networking.request_timeout = REQUEST_TIMEOUT_SECONDS
    settings.networking.error_backoffs = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55]
    settings.queueing.exit_timeout = 1.0
    return settings


def build_registry(cache: Cache, queue: KeyQueue) -> kopf.OperatorRegistry:
    """Return the handlers: one for pipelines, one for every kind of child, and the way to log in."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)(_log_in)

    async def observe_pipeline(event: Mapping[str, Any], **_: Any) -> None:
        body = event["object"]
        try:
            key = cache.observe_pipeline(event["type"], body)
        except PipelineError as error:
            name = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
            log.warning("pipeline not understood: is the CRD this operator's?", pipeline=name, error=str(error))
            return
        _note(PLURAL, queue.add, key)
        metrics.pipelines.set(len(cache.pipelines))

    async def observe_child(event: Mapping[str, Any], **_: Any) -> None:
        key = cache.observe_child(event["type"], event["object"])
        _note(event["object"]["kind"], queue.add, key)

    kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(observe_pipeline)
    for child in CHILDREN:
        kopf.on.event(*child, registry=registry)(observe_child)
    return registry


def _note(kind: str, add: Callable[[str], None], key: str | None) -> None:
    metrics.last_event_seconds.labels(kind).set(time.time())
    if key is not None:
        add(key)


async def _log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Log in as `KubernetesAPI.connect` does; the official client knows the plugins a kubeconfig may name."""
    if "KUBECONFIG" in os.environ or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return kopf.login_via_client(**kwargs)
    return kopf.login_with_service_account(**kwargs)
