"""The scaling loop in a cluster: offsets from Kafka, replicas from Deployments, decisions to /scale and status.

The loop and the decision know none of this; here is only what a Kubernetes object and an admin client make of them.
Replicas belong to field manager `tocsin-scaler`: Deployments are applied without them, and nobody else writes them.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from prometheus_client import REGISTRY, CollectorRegistry

from tocsin_core.errors import NotAuthenticated
from tocsin_operator.apply import KubernetesAPI
from tocsin_operator.cache import Cache
from tocsin_operator.children.naming import Role, name_workload
from tocsin_operator.clock import SteadyClock
from tocsin_operator.errors import KubernetesFailure, ObjectMissing, WriteConflict
from tocsin_operator.facts import DeploymentFacts, parse_deployment
from tocsin_operator.ingestion_scaler import IngestionScaler
from tocsin_operator.kafka_clusters import KafkaClusters, name_cluster
from tocsin_operator.model import Pipeline
from tocsin_operator.pods import PageReader, PodPages
from tocsin_operator.scaling.config import build_scaling_config
from tocsin_operator.scaling.counters import parse_consumer
from tocsin_operator.scaling.loop import ScalingLoop
from tocsin_operator.scaling.model import ConsumerCounters, Replicas
from tocsin_operator.scaling.ports import Answer, Clock, ScaleConflict, Seen, Target
from tocsin_operator.scaling.record import restore_state
from tocsin_operator.scaling_metrics import ScalingMetrics
from tocsin_operator.scaling_status import StatusPublisher

EVICTION_SECONDS = 60.0
PHASES = 1_000
CONSUMER: Role = "consumer"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

log = structlog.get_logger(__name__)


class Scaler:
    """The scaling loop of the operator. The leader runs it; `last_tick_seconds` says whether it is alive."""

    def __init__(
        self,
        *,
        api: KubernetesAPI,
        cache: Cache,
        clusters: KafkaClusters,
        clock: Clock | None = None,
        registry: CollectorRegistry = REGISTRY,
        pages: PodPages | None = None,
    ) -> None:
        self._clock = clock or SteadyClock()
        self._clusters = clusters
        self._pages = pages or PodPages(api, PageReader(), now=self._clock.now_seconds)
        world = ClusterWorld(api=api, cache=cache, clusters=clusters, pages=self._pages, now=self._clock.now_seconds)
        publisher = StatusPublisher(api=api, cache=cache, metrics=ScalingMetrics(registry))
        self._ingestion = IngestionScaler(api=api, cache=cache, pages=self._pages, clock=self._clock, registry=registry)
        self._loop = ScalingLoop(observer=world, actor=world, publisher=publisher, clock=self._clock)

    async def run(self) -> None:
        """Scale until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._loop.run(), name="scaling loop")
                tasks.create_task(self._ingestion.run(), name="scaling of ingestion")
                tasks.create_task(self._evict_forever(), name="eviction of Kafka clients")
        finally:
            await self._pages.close()

    async def run_pass(self) -> None:
        """Handle everything that is due now, and return when it is done."""
        await self._loop.run_pass()

    @property
    def stale_seconds(self) -> float:
        """Return how long ago the loop last looked for what is due."""
        return self._clock.now_seconds() - self._loop.last_tick_seconds

    async def _evict_forever(self) -> None:
        while True:
            await self._clock.sleep(EVICTION_SECONDS)
            await self._clusters.evict_unused()


class ClusterWorld:
    """What the loop reads and writes, in a cluster."""

    def __init__(
        self, *, api: KubernetesAPI, cache: Cache, clusters: KafkaClusters, pages: PodPages, now: Callable[[], float]
    ) -> None:
        self._api = api
        self._cache = cache
        self._clusters = clusters
        self._pages = pages
        self._now = now
        self._targets: dict[str, tuple[tuple[str, int], Target]] = {}
        self._conflicted: set[str] = set()
        self._next_count: dict[str, float] = {}
        self._counters: dict[str, tuple[ConsumerCounters, ...]] = {}

    def list_targets(self) -> Iterable[Target]:
        """Return a target for each pipeline there is."""
        pipelines = self._cache.pipelines
        self._targets = {key: known for key, known in self._targets.items() if key in pipelines}
        self._next_count = {key: at for key, at in self._next_count.items() if key in pipelines}
        self._counters = {key: known for key, known in self._counters.items() if key in pipelines}
        self._pages.forget_others(set(pipelines))
        return [self._find_target(pipeline) for pipeline in pipelines.values()]

    async def observe_groups(self, cluster: str, targets: Sequence[Target]) -> Mapping[str, Answer]:
        """Return the offsets of all targets with one question: they share a connection, so the first one's is used."""
        del cluster
        pipeline = next(
            (self._cache.pipelines[each.key] for each in targets if each.key in self._cache.pipelines), None
        )
        if pipeline is None:
            return {}
        admin = await self._clusters.admin_for(pipeline)
        answers = await admin.observe_groups([(target.group, target.topic) for target in targets])
        if any(isinstance(answer, NotAuthenticated) for answer in answers.values()):
            self._clusters.forget_secrets(pipeline)
        return {target.key: answers[target.group, target.topic] for target in targets}

    async def observe_replicas(self, target: Target) -> Seen | None:
        """Return the consumers' Deployment, from the cache unless a write just showed that the cache is behind."""
        pipeline = self._cache.pipelines.get(target.key)
        if pipeline is None:
            return None
        facts = self._cache.find_deployment(pipeline, CONSUMER)
        if target.key in self._conflicted:
            self._conflicted.discard(target.key)
            facts = await self._read_deployment(pipeline)
        if facts is None:
            return None
        return Seen(Replicas(spec=facts.desired, ready=facts.ready), facts.resource_version)

    async def observe_consumers(self, target: Target) -> tuple[ConsumerCounters, ...] | None:
        """Return the counters of the consumers that answer, as often as a promise of this length needs them."""
        now_seconds = self._now()
        if now_seconds < self._next_count.get(target.key, 0.0):
            return None
        self._next_count[target.key] = find_next_count(target, now_seconds)
        pipeline = self._cache.pipelines.get(target.key)
        facts = self._cache.find_deployment(pipeline, CONSUMER) if pipeline else None
        if pipeline is None or facts is None or facts.ready == 0:
            return ()
        pages = await self._pages.read(pipeline, CONSUMER, version=facts.resource_version)
        found = [parse_consumer(pod, page) for pod, page in pages.items()]
        self._counters[target.key] = tuple(each for each in found if each is not None)
        return self._counters[target.key]

    async def apply_scale(self, target: Target, replicas: int, version: str) -> None:
        """Write the consumers' /scale at the version that the decision was made on."""
        pipeline = self._cache.pipelines.get(target.key)
        if pipeline is None:
            return
        name = name_workload(pipeline, CONSUMER)
        facts = self._cache.find_deployment(pipeline, CONSUMER)
        if facts is not None and 0 < replicas < facts.desired:
            await self._price_pods(pipeline, self._counters.get(target.key, ()))
        try:
            await self._api.apply_scale(pipeline.namespace, name, replicas, resource_version=version)
        except WriteConflict as error:
            self._conflicted.add(target.key)
            raise ScaleConflict(str(error)) from error

    async def _price_pods(self, pipeline: Pipeline, counters: Sequence[ConsumerCounters]) -> None:
        """Tell Kubernetes what each pod's end would cost, so that those leave that have least under way.

        It is advice: a pod that cannot be marked is no reason to keep all of them.
        """
        for each in counters:
            cost = {DELETION_COST: str(int(each.in_flight))}
            try:
                await self._api.annotate_pod(pipeline.namespace, each.pod, cost)
            except KubernetesFailure as error:
                log.info("pod not marked", pipeline=pipeline.key, pod=each.pod, error=str(error))
                return

    async def _read_deployment(self, pipeline: Pipeline) -> DeploymentFacts | None:
        try:
            return parse_deployment(
                await self._api.read("Deployment", pipeline.namespace, name_workload(pipeline, CONSUMER))
            )
        except ObjectMissing:
            return None

    def _find_target(self, pipeline: Pipeline) -> Target:
        version = (pipeline.uid, pipeline.generation)
        known = self._targets.get(pipeline.key)
        if known is None or known[0] != version:
            known = (version, build_target(pipeline))
            self._targets[pipeline.key] = known
        return known[1]


def find_next_count(target: Target, now_seconds: float) -> float:
    """Return when the target's pods are read again: each pipeline at a time of its own, or a fleet is read at once."""
    every_seconds = target.config.count_seconds
    phase_seconds = every_seconds * (zlib.crc32(target.key.encode()) % PHASES) / PHASES
    return (math.floor((now_seconds - phase_seconds) / every_seconds) + 1) * every_seconds + phase_seconds


def build_target(pipeline: Pipeline) -> Target:
    """Return a pipeline as the loop sees it, with what its status remembers."""
    config = build_scaling_config(pipeline.spec)
    return Target(
        key=pipeline.key,
        uid=pipeline.uid,
        cluster=name_cluster(pipeline),
        group=pipeline.consumer_group,
        topic=pipeline.spec.kafka.topic.name,
        config=config,
        restored=restore_state(pipeline.status, config),
    )
