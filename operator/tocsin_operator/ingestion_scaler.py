"""The ingestion pods of pipelines in mode Auto: read, decide, write /scale.

A loop of its own beside the consumers': it asks no Kafka, looks more often, and a broker that is slow must not slow it.
Manual, the default, costs nothing here: those pipelines are the reconciler's.
"""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from tocsin_core.errors import TocsinError
from tocsin_operator.apply import SCALER, KubernetesAPI
from tocsin_operator.cache import Cache
from tocsin_operator.children.naming import Role
from tocsin_operator.errors import WriteConflict
from tocsin_operator.facts import DeploymentFacts
from tocsin_operator.model import Pipeline
from tocsin_operator.pods import PodPages
from tocsin_operator.scaling.counters import parse_ingestion
from tocsin_operator.scaling.model import Replicas
from tocsin_operator.scaling.ports import Clock
from tocsin_operator.scaling.requests import (
    RequestConfig,
    RequestDecision,
    RequestLook,
    RequestState,
    decide_requests,
)

INTERVAL_SECONDS = 3.0
WORKERS = 20
INGESTION: Role = "ingestion"
LABELS = ("namespace", "name")

log = structlog.get_logger(__name__)


class IngestionScaler:
    """Sizes ingestion by requests per second, where a pipeline asks for that."""

    def __init__(
        self,
        *,
        api: KubernetesAPI,
        cache: Cache,
        pages: PodPages,
        clock: Clock,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._api = api
        self._cache = cache
        self._pages = pages
        self._clock = clock
        self._workers = asyncio.Semaphore(WORKERS)
        self._states: dict[str, tuple[str, RequestState]] = {}
        self._requests = Gauge(
            "tocsin_scaling_ingestion_requests_per_second", "Requests in a minute.", LABELS, registry=registry
        )
        self._desired = Gauge(
            "tocsin_scaling_ingestion_desired_replicas", "Ingestion pods decided on.", LABELS, registry=registry
        )

    async def run(self) -> None:
        """Scale until cancelled."""
        while True:
            await self.run_pass()
            await self._clock.sleep(INTERVAL_SECONDS)

    async def run_pass(self) -> None:
        """Handle every pipeline that asks for it once."""
        pipelines = {key: each for key, each in self._cache.pipelines.items() if _is_sized(each)}
        for key in self._states.keys() - pipelines.keys():
            self._forget(key)
        await asyncio.gather(*(self._handle(pipeline) for pipeline in pipelines.values()))

    async def _handle(self, pipeline: Pipeline) -> None:
        async with self._workers:
            try:
                await self._scale(pipeline)
            except TocsinError as error:
                log.info("ingestion not scaled", pipeline=pipeline.key, error=str(error))
            except Exception:  # a loop top: one pipeline's bug must not stop the others
                log.exception("scaling ingestion failed", pipeline=pipeline.key)

    async def _scale(self, pipeline: Pipeline) -> None:
        facts = self._cache.find_deployment(pipeline, INGESTION)
        if facts is None:
            return
        pages = await self._pages.read(pipeline, INGESTION, version=facts.resource_version)
        found = [parse_ingestion(pod, page) for pod, page in pages.items()]
        look = RequestLook(
            time_seconds=self._clock.now_seconds(),
            replicas=Replicas(spec=facts.desired, ready=facts.ready),
            pods=tuple(each for each in found if each is not None),
        )
        uid, state = self._states.get(pipeline.key, ("", RequestState()))
        decision, state = decide_requests(
            look, state if uid == pipeline.uid else RequestState(), build_request_config(pipeline)
        )
        self._states[pipeline.key] = (pipeline.uid, state)
        self._measure(pipeline, decision)
        if decision.replicas != facts.desired:
            await self._apply(pipeline, facts, decision)

    async def _apply(self, pipeline: Pipeline, facts: DeploymentFacts, decision: RequestDecision) -> None:
        try:
            await self._api.apply_scale(
                pipeline.namespace, facts.name, decision.replicas, resource_version=facts.resource_version
            )
        except WriteConflict:
            log.info("replicas changed while deciding", pipeline=pipeline.key, role=INGESTION)
            return
        direction = "Out" if decision.replicas > facts.desired else "In"
        message = f"from {facts.desired} to {decision.replicas}: {decision.message} ({decision.reason.value})"
        log.info("scaled", pipeline=pipeline.key, role=INGESTION, message=message)
        await self._api.emit_event(
            pipeline,
            reason=f"IngestionScaled{direction}",
            message=message,
            action="Scale",
            reporting_controller=SCALER,
        )

    def _measure(self, pipeline: Pipeline, decision: RequestDecision) -> None:
        labels = (pipeline.namespace, pipeline.name)
        self._desired.labels(*labels).set(decision.replicas)
        if decision.requests_per_second is not None:
            self._requests.labels(*labels).set(decision.requests_per_second)

    def _forget(self, key: str) -> None:
        del self._states[key]
        namespace, _, name = key.partition("/")
        for gauge in (self._requests, self._desired):
            try:
                gauge.remove(namespace, name)
            except KeyError:
                continue  # it was never measured


def build_request_config(pipeline: Pipeline) -> RequestConfig:
    """Return the rules' config of a pipeline's ingestion."""
    scaling = pipeline.spec.ingestion.scaling
    return RequestConfig(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        target_per_second=scaling.target_requests_per_second,
    )


def _is_sized(pipeline: Pipeline) -> bool:
    return pipeline.spec.ingestion.scaling.mode == "Auto" and not pipeline.spec.suspend
