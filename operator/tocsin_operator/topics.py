"""The pipeline's topic, its retry topics and its dead-letter topic.

Managed topics are created and grown, never shrunk and never deleted; External ones are only read. What they should be
is pure (`build_topics`, `topic_config`); `TopicKeeper` sees to it, remembers the outcome, and keeps a Kafka that does
not answer from holding up anybody else: the work goes on in the background, and a caller waits for it no longer than it
says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from tocsin_core.admin import TopicFacts
from tocsin_core.errors import NotAuthorized, TocsinError, TopicMissing
from tocsin_operator.conditions import Claim
from tocsin_operator.model import Pipeline
from tocsin_operator.problems import (
    Problem,
    explain_kafka_failure,
    explain_missing_retry_topics,
    explain_topic_fault,
)
from tocsin_operator.topic_config import build_configs, find_config_problems

DEFAULT_PARTITIONS = 12
DEAD_LETTER_PARTITIONS = 3
AGAIN_AFTER_SECONDS = 15.0
FRESH_SECONDS = 600.0
NEW_TOPIC_TRIES = 10
NEW_TOPIC_PAUSE_SECONDS = 0.3

log = structlog.get_logger(__name__)

Version = tuple[str, int]  # uid and generation: which pipeline, in which version


class TopicAdmin(Protocol):
    """The part of the core's KafkaAdmin that topics need; the core says what each call does and raises."""

    async def describe_topic(self, name: str) -> TopicFacts:
        """Return what the topic is like."""

    async def create_topic(
        self, name: str, *, partitions: int, replication_factor: int | None, config: dict[str, str]
    ) -> None:
        """Create the topic, unless it exists."""

    async def grow_topic(self, name: str, partitions: int) -> None:
        """Grow the topic to so many partitions."""


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as it should be."""

    name: str
    partitions: int
    replication_factor: int | None
    config: dict[str, str]
    may_grow: bool = True


@dataclass(frozen=True, slots=True)
class News:
    """Something done to a topic: worth an event."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What is known of a pipeline's topics: facts, or a problem, or neither yet; `warnings` stop nothing."""

    facts: TopicFacts | None = None
    problem: Problem | None = None
    warnings: tuple[Problem, ...] = ()
    news: tuple[News, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    version: Version
    expires_at: float
    report: TopicReport


def build_topics(pipeline: Pipeline) -> tuple[WantedTopic, ...]:
    """Return the topics a pipeline wants managed, the dead-letter topic last; none where they are External.

    The retry topics have as many partitions as the topic: a record waits in the partition of its own number. Raise
    SettingsError for a setting that should be a number and is none.
    """
    topic = pipeline.spec.kafka.topic
    if topic.management == "External":
        return ()
    partitions = topic.partitions or DEFAULT_PARTITIONS
    few = min(partitions, DEAD_LETTER_PARTITIONS)
    factor, configs = topic.replication_factor, build_configs(pipeline)
    return (
        WantedTopic(topic.name, partitions, factor, configs.topic),
        *(WantedTopic(name, partitions, factor, configs.retries) for name in pipeline.retry_topics),
        WantedTopic(pipeline.dead_letter_topic, few, factor, configs.dead_letters, may_grow=False),
    )


def claim_durable(pipeline: Pipeline, report: TopicReport) -> Claim:
    """Return whether acks=all means more than the leader's own disk."""
    facts, topic = report.facts, pipeline.spec.kafka.topic
    if facts is None:
        return Claim("TopicDurable", None, "TopicUnknown", f"topic {topic.name} has not been read yet")
    seen = f"topic {facts.name}: replication factor {facts.replication_factor}"
    if facts.min_insync_replicas is None:
        fix = "grant DescribeConfigs on the topic to the pipeline's user"
        return Claim("TopicDurable", None, "ConfigUnreadable", f"{seen}, min.insync.replicas not readable; {fix}")
    seen = f"{seen}, min.insync.replicas {facts.min_insync_replicas}"
    if min(facts.replication_factor, facts.min_insync_replicas) > 1:
        return Claim("TopicDurable", True, "AcksFromFollowers", seen)
    fix = "use a replication factor of 3 and min.insync.replicas 2 (kafka-configs.sh, kafka-reassign-partitions.sh)"
    return Claim("TopicDurable", False, "LeaderAlone", f"{seen}: a 202 rests on one broker's disk; {fix}")


class TopicKeeper:
    """Looks after topics in the background, one pipeline at a time each, and remembers what it found."""

    def __init__(
        self,
        find_admin: Callable[[Pipeline], Awaitable[TopicAdmin]],
        *,
        clock: Callable[[], float],
        on_change: Callable[[str], None],
    ) -> None:
        self._find_admin = find_admin
        self._clock = clock
        self._on_change = on_change
        self._known: dict[str, _Known] = {}
        self._running: dict[str, tuple[Version, asyncio.Task[None]]] = {}
        self._news: dict[str, list[News]] = {}

    async def ensure(self, pipeline: Pipeline, *, wait_seconds: float) -> TopicReport:
        """Return the report on a pipeline's topics, looking after them first where it is old; wait only so long.

        A report on the same version of the pipeline is returned at once while a newer one is made. Whenever a report
        differs from the one before, `on_change` is called with the key.
        """
        known = self._known.get(pipeline.key)
        is_same = known is not None and known.version == _version(pipeline)
        if known is None or not is_same or self._clock() >= known.expires_at:
            await asyncio.wait([self._start(pipeline)], timeout=0 if is_same else wait_seconds)
        known = self._known.get(pipeline.key)
        return known.report if known is not None else TopicReport()

    def take_news(self, key: str) -> list[News]:
        """Return what was done since the last call."""
        return self._news.pop(key, [])

    def forget(self, key: str) -> None:
        """Forget a pipeline that is gone; its topics stay."""
        self._known.pop(key, None)
        self._news.pop(key, None)
        if key in self._running:
            self._running[key][1].cancel()

    async def close(self) -> None:
        """Stop what is still going on."""
        running = [task for _, task in self._running.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self, pipeline: Pipeline) -> asyncio.Task[None]:
        version, running = self._running.get(pipeline.key, (None, None))
        if running is not None and version == _version(pipeline) and not running.done():
            return running
        if running is not None:
            running.cancel()
        task = asyncio.create_task(self._look_after(pipeline), name=f"topics of {pipeline.key}")
        self._running[pipeline.key] = (_version(pipeline), task)
        return task

    async def _look_after(self, pipeline: Pipeline) -> None:
        try:
            report = await apply_topics(await self._find_admin(pipeline), pipeline)
        except TocsinError as error:
            report = TopicReport(problem=explain_kafka_failure(error, pipeline))
        except Exception as error:  # nobody awaits this task's outcome: its bug must show in the status
            log.exception("topics not looked after", pipeline=pipeline.key)
            report = TopicReport(problem=explain_topic_fault(error, pipeline))
        before = self._known.get(pipeline.key)
        is_wrong = report.problem is not None or report.warnings
        expires_at = self._clock() + (AGAIN_AFTER_SECONDS if is_wrong else FRESH_SECONDS)
        self._known[pipeline.key] = _Known(_version(pipeline), expires_at, report)
        self._news.setdefault(pipeline.key, []).extend(report.news)
        self._running.pop(pipeline.key, None)
        if before is None or before.report != report:
            self._on_change(pipeline.key)


async def apply_topics(admin: TopicAdmin, pipeline: Pipeline) -> TopicReport:
    """Create and grow what is managed, and return what the pipeline's topic is like now. Raise what Kafka refuses."""
    news = [news for wanted in build_topics(pipeline) if (news := await _apply_topic(admin, wanted))]
    facts = await _describe(admin, pipeline.spec.kafka.topic.name, is_new=bool(news))
    dead_letters = await _describe(admin, pipeline.dead_letter_topic, is_new=bool(news))
    retries = {name: await _find(admin, name, is_new=bool(news)) for name in pipeline.retry_topics}
    missing = [name for name, found in retries.items() if found is None]
    return TopicReport(
        facts=facts,
        problem=explain_missing_retry_topics(missing, facts.partitions) if missing else None,
        warnings=find_config_problems(pipeline, [facts, *filter(None, retries.values()), dead_letters]),
        news=tuple(news),
    )


async def _find(admin: TopicAdmin, name: str, *, is_new: bool) -> TopicFacts | None:
    try:
        return await _describe(admin, name, is_new=is_new)
    except (TopicMissing, NotAuthorized):  # consumers go on without it
        return None


async def _apply_topic(admin: TopicAdmin, wanted: WantedTopic) -> News | None:
    try:
        facts = await admin.describe_topic(wanted.name)
    except TopicMissing:
        factor = wanted.replication_factor
        await admin.create_topic(
            wanted.name, partitions=wanted.partitions, replication_factor=factor, config=wanted.config
        )
        return News("TopicCreated", f"created topic {wanted.name} with {wanted.partitions} partitions")
    # Dead letters have no order worth more partitions.
    if not wanted.may_grow or facts.partitions >= wanted.partitions:
        return None
    await admin.grow_topic(wanted.name, wanted.partitions)
    message = (
        f"grew topic {wanted.name} from {facts.partitions} to {wanted.partitions} partitions: recipients move between "
        "partitions, so what was accepted before may be delivered after what is accepted now"
    )
    return News("TopicGrown", message)


async def _describe(admin: TopicAdmin, name: str, *, is_new: bool) -> TopicFacts:
    """Return the facts of a topic; a new one takes a moment to be known by every broker."""
    for _ in range(NEW_TOPIC_TRIES if is_new else 0):
        try:
            return await admin.describe_topic(name)
        except TopicMissing:
            await asyncio.sleep(NEW_TOPIC_PAUSE_SECONDS)
    try:
        return await admin.describe_topic(name)
    except TopicMissing as error:
        advice = "create it, or set kafka.topic.management to Managed and the operator does"
        raise TopicMissing(f"{name} does not exist, or its user may not see it", advice=advice) from error


def _version(pipeline: Pipeline) -> Version:
    return (pipeline.uid, pipeline.generation)
