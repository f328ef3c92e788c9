"""The operator's process: health first, then the Lease, then the watches, the workers and the scaler beside each other.

Whoever waits for the Lease answers its probes and does nothing else. The first part of the leader that ends, ends the
process: Kubernetes starts it again, and everything it needs to know is in the cluster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from datetime import UTC, datetime

import structlog

from tocsin_core import lifecycle
from tocsin_core.health import HealthServer
from tocsin_core.logging import configure_logging
from tocsin_core.settings import HealthSettings, LogSettings
from tocsin_operator import metrics
from tocsin_operator.apply import KubernetesAPI
from tocsin_operator.cache import Cache
from tocsin_operator.children.deployments import Image
from tocsin_operator.errors import ObjectMissing
from tocsin_operator.handlers import run_watches
from tocsin_operator.kafka_clusters import KafkaClusters
from tocsin_operator.lease import LeaseTerms, lead
from tocsin_operator.model import KIND
from tocsin_operator.queue import KeyQueue
from tocsin_operator.reconcile import Reconciler
from tocsin_operator.scaler import Scaler
from tocsin_operator.settings import OperatorSettings, load_settings
from tocsin_operator.topics import TopicKeeper
from tocsin_operator.workers import run_workers
from tocsin_operator.workloads import Workloads

LOST_LEASE_EXIT_CODE = 3
STALE_SCALER_SECONDS = 60.0
# kopf says each event twice; librdkafka says ten times a second what a condition says once.
CHATTY_LOGGERS = {"kopf": logging.WARNING, "tocsin.librdkafka": logging.CRITICAL}

log = structlog.get_logger(__name__)


def run() -> int:
    """Run the operator until it is told to stop (0) or one of its parts ends (1). Raise SettingsError."""
    settings = load_settings()
    configure_logging(LogSettings(level=settings.log_level), service="operator")
    for name, least in CHATTY_LOGGERS.items():
        logging.getLogger(name).setLevel(logging.DEBUG if settings.log_level == "debug" else least)
    return lifecycle.run(lambda stop: operate(settings, stop))


async def operate(settings: OperatorSettings, stop: asyncio.Event) -> int:
    """Serve health, wait for the Lease, and lead until `stop`; return the exit code."""
    api = await KubernetesAPI.connect()
    controller = Controller(settings, api)
    health = HealthServer(
        HealthSettings(port=settings.health_port), check_ready=lambda: "", check_alive=controller.check_alive
    )
    await health.start()
    try:
        return await _lead_until(stop, settings, api, controller)
    finally:
        await health.stop()
        await api.close()


class Controller:
    """What the leader runs."""

    def __init__(self, settings: OperatorSettings, api: KubernetesAPI) -> None:
        self._settings = settings
        self._api = api
        self._scaler: Scaler | None = None

    async def run(self) -> None:
        """Watch, reconcile and scale until one of these ends; raise what ended it."""
        await self._require_crd()
        metrics.is_leading.set(1)
        cache, queue = Cache(), KeyQueue(time.monotonic)
        clusters = KafkaClusters(self._api, secret_reader=self._settings.secret_reader)
        topics = TopicKeeper(clusters.admin_for, clock=time.monotonic, on_change=queue.add)
        self._scaler = Scaler(api=self._api, cache=cache, clusters=clusters)
        reconciler = self._build_reconciler(cache, topics)
        parts = [
            asyncio.create_task(self._scaler.run(), name="scaler"),
            asyncio.create_task(run_workers(queue, reconciler.reconcile, count=self._settings.workers), name="workers"),
            asyncio.create_task(run_watches(cache, queue, namespaces=self._settings.watch_namespaces), name="watches"),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await topics.close()
            await clusters.close()

    def check_alive(self) -> str:
        """Return why the process should be started again, "" if it should not."""
        if self._scaler is not None and self._scaler.stale_seconds > STALE_SCALER_SECONDS:
            return f"the scaling loop has not looked around for {self._scaler.stale_seconds:.0f} s"
        return ""

    def _build_reconciler(self, cache: Cache, topics: TopicKeeper) -> Reconciler:
        settings = self._settings
        image = Image(settings.image, settings.image_pull_policy, tuple(settings.image_pull_secrets))
        workloads = Workloads(self._api, cache, image, time.monotonic, settings.resync_seconds * 0.8)
        return Reconciler(self._api, cache, topics, workloads, lambda: datetime.now(UTC), settings.resync_seconds)

    async def _require_crd(self) -> None:
        """Raise ObjectMissing, saying what to install, where the cluster knows no pipelines: kopf would just wait."""
        namespace = next(iter(self._settings.watch_namespaces), "default")
        try:
            await self._api.list(KIND, namespace, limit="1")
        except ObjectMissing as error:
            message = "the cluster has no NotificationPipeline resource; install it: kubectl apply -f manifests/crd"
            raise ObjectMissing(message, status=error.status) from error


async def _lead_until(
    stop: asyncio.Event, settings: OperatorSettings, api: KubernetesAPI, controller: Controller
) -> int:
    terms = LeaseTerms(settings.namespace, settings.lease_name, settings.identity, settings.lease_seconds)
    leading = asyncio.create_task(lead(api.client, terms, controller.run, on_lost=_die), name="leader")
    stopping = asyncio.create_task(stop.wait(), name="signal")
    await asyncio.wait({leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    leading.cancel()
    (outcome,) = await asyncio.gather(leading, return_exceptions=True)
    if isinstance(outcome, Exception):
        log.error("operator ended", error=str(outcome), exc_info=outcome)
        return 1
    return 0


def _die() -> None:
    """Leave at once: another instance is about to lead, and an orderly end would take longer than it waits."""
    log.critical("lease lost: leaving", exit_code=LOST_LEASE_EXIT_CODE)
    sys.stdout.flush()
    os._exit(LOST_LEASE_EXIT_CODE)


if __name__ == "__main__":
    sys.exit(run())
