"""One look at one pipeline: what the spec says becomes true, and the status says what is.

Level-triggered: a look never asks what changed, only what is, so that a missed event, a restart or a hand's change of
a child all end the same way. It may run any number of times; when everything is as it should be it writes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tocsin_operator.apply import OPERATOR, KubernetesAPI
from tocsin_operator.cache import Cache
from tocsin_operator.children.naming import ROLES
from tocsin_operator.errors import ObjectMissing
from tocsin_operator.events import select_events
from tocsin_operator.model import Pipeline
from tocsin_operator.observe import observe_pods, observe_users
from tocsin_operator.problems import Problem, explain_deployment, find_pod_problems
from tocsin_operator.sharing import find_shared_topic
from tocsin_operator.status import World, build_status, is_status_current
from tocsin_operator.topics import TopicKeeper, TopicReport, claim_durable
from tocsin_operator.workloads import Workloads

MOVING_SECONDS = 3.0  # pods tell nobody why they do not start, so somebody asks
MENDING_SECONDS = 15.0
TOPIC_WAIT_SECONDS = 10.0  # topics first, or a producer's first request makes one with the broker's defaults


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Looks at pipelines; `now` is the time of day for conditions."""

    api: KubernetesAPI
    cache: Cache
    topics: TopicKeeper
    workloads: Workloads
    now: Callable[[], datetime]
    resync_seconds: float

    async def reconcile(self, key: str) -> float | None:
        """Bring one pipeline to what its spec says; return in how many seconds to look again, None if it is gone.

        Raise KubernetesFailure where the API server failed in a way that may pass.
        """
        pipeline = self.cache.pipelines.get(key)
        if pipeline is None:
            self._forget(key)
            return None
        topic = await self.topics.ensure(pipeline, wait_seconds=TOPIC_WAIT_SECONDS)
        refused = await self.workloads.apply(pipeline)
        world = await self._observe(pipeline, topic, refused)
        try:
            await self._apply_status(pipeline, world)
        except ObjectMissing:  # deleted, and the watch has not said so yet
            self._forget(key)
            return None
        if world.problems:
            return MENDING_SECONDS
        is_moving = any((facts := world.deployments[role]) is None or not facts.is_rolled_out for role in ROLES)
        if is_moving:
            return MOVING_SECONDS
        return MENDING_SECONDS if world.warnings else _spread(key, self.resync_seconds)

    async def _observe(self, pipeline: Pipeline, topic: TopicReport, refused: list[Problem]) -> World:
        deployments = {role: self.cache.find_deployment(pipeline, role) for role in ROLES}
        is_moving = any(facts is not None and not facts.is_rolled_out for facts in deployments.values())
        pods = await observe_pods(self.api, pipeline, now=self.now()) if is_moving else ()
        problems = [
            *refused,
            *await observe_users(self.api, pipeline),
            *([topic.problem] if topic.problem else []),
            *find_pod_problems(pods, pipeline),
            *[problem for facts in deployments.values() if facts and (problem := explain_deployment(facts))],
        ]
        shared = find_shared_topic(pipeline, self.cache.pipelines.values())
        warnings = (*([shared] if shared else []), *topic.warnings)
        return World(deployments, tuple(problems), claim_durable(pipeline, topic), warnings)

    async def _apply_status(self, pipeline: Pipeline, world: World) -> None:
        # The latest status, not the one this look began with: its own earlier write may have come back meanwhile.
        latest = self.cache.pipelines.get(pipeline.key, pipeline)
        status = build_status(latest, world, now=self.now())
        if not is_status_current(latest, status):
            answer = await self.api.apply_status(latest, status, field_manager=OPERATOR)
            self.cache.observe_pipeline("MODIFIED", answer)
            for event in select_events(latest.status.get("conditions", []), status["conditions"]):
                await self.api.emit_event(latest, level=event.level, reason=event.reason, message=event.message)
        for news in self.topics.take_news(pipeline.key):
            await self.api.emit_event(latest, reason=news.reason, message=news.message)

    def _forget(self, key: str) -> None:
        self.cache.forget(key)
        self.topics.forget(key)


def _spread(key: str, seconds: float) -> float:
    """Return about `seconds`, another number for each key, so that a fleet does not resync in one moment."""
    return seconds * (0.9 + 0.2 * (zlib.crc32(key.encode()) % 1000) / 1000)
