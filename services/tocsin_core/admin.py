"""Questions to a Kafka cluster, and the few changes Tocsin makes to one: topics are created and grown, never shrunk.

librdkafka's admin requests are asynchronous already; their futures are awaited here, and no thread is spent on them.
Every request ends within `timeout_seconds`. A wrong password would only look like a timeout, so the client's error
events are read while a call waits: NotAuthenticated is raised as soon as the broker says it.

A client that got no answer for a while gives way to a new one: it may have lost its brokers for good
(`client_statistics`), and unlike a consumer's or a producer's nobody reads its statistics while it idles.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

from tocsin_core.commits import Commit, read_leads
from tocsin_core.connection import (
    COORDINATOR_PASSES,
    Code,
    build_client_config,
    check_files,
    choose_cause,
    translate,
    translate_error,
    translate_exception,
)
from tocsin_core.errors import KafkaFailure, KafkaUnavailable, NotAuthenticated, NotAuthorized
from tocsin_core.lag import PartitionOffsets
from tocsin_core.settings import KafkaConnection

EVENT_SECONDS = 0.1
TIMEOUT_SECONDS = 10.0
GRACE_SECONDS = 1.0
AGAIN_SECONDS = 0.1
NO_OFFSET = -1001
RENEW_SECONDS = 30.0
"""How long a client may go without an answer. While Kafka is away a new one does not help, and does no harm."""

FAILURE_RECENT_SECONDS = 35.0
"""librdkafka keeps quiet about a repeated failure for 30 s."""

Observation = tuple[PartitionOffsets, ...] | KafkaFailure


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """A cluster as its brokers describe it. In KRaft `controller_id` is the broker that forwards to the controller."""

    cluster_id: str
    controller_id: int
    broker_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic; `min_insync_replicas` is None and `config` empty where the user may not read configurations."""

    name: str
    partitions: int
    replication_factor: int
    min_insync_replicas: int | None
    config: Mapping[str, str] = field(default_factory=dict)


class KafkaAdmin:
    """One admin client for one connection. Its methods belong to one event loop and may run at the same time."""

    def __init__(
        self, connection: KafkaConnection, *, client_id: str, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        """Prepare the client. Raise SettingsError for an unreadable file, KafkaFailure for unusable settings."""
        check_files(connection.tls)
        self._timeout_seconds = timeout_seconds
        self._failure: KafkaFailure | None = None
        self._failed_at = 0.0
        self._unanswered_since: float | None = None
        self._config = {**build_client_config(connection), "client.id": client_id, "error_cb": self._on_error}
        self._client: AdminClient | None = self._build()

    async def describe_cluster(self) -> ClusterFacts:
        """Return who the cluster is. Raise KafkaFailure."""
        found = await self._await(self._open.describe_cluster(**self._bounded))
        controller = found.controller.id if found.controller else -1
        return ClusterFacts(found.cluster_id, controller, tuple(sorted(node.id for node in found.nodes)))

    async def describe_topic(self, name: str) -> TopicFacts:
        """Return a topic's shape and configuration. Raise TopicMissing, or another KafkaFailure."""
        found = (await self._describe_topics([name]))[name]
        if isinstance(found, KafkaFailure):
            raise found
        config = await self._describe_config(name)
        min_insync = config.get("min.insync.replicas")
        return TopicFacts(
            name=name,
            partitions=len(found.partitions),
            replication_factor=min((len(each.replicas) for each in found.partitions), default=0),
            min_insync_replicas=int(min_insync) if min_insync else None,
            config=config,
        )

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int,
        replication_factor: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Create a topic and return when the broker tells of it; one that exists is fine, whatever its shape.

        Raise KafkaFailure.
        """
        topic = NewTopic(
            name, partitions, -1 if replication_factor is None else replication_factor, config=dict(config or {})
        )
        futures = self._open.create_topics([topic], **self._bounded)
        await self._await(futures[name], fine=Code.TOPIC_ALREADY_EXISTS)
        await self._await_partitions(name, 1)

    async def grow_topic(self, name: str, partitions: int) -> None:
        """Give a topic at least that many partitions; more are left alone. Raise TopicMissing or another failure."""
        found = (await self._describe_topics([name]))[name]
        if isinstance(found, KafkaFailure):
            raise found
        if len(found.partitions) < partitions:
            futures = self._open.create_partitions([NewPartitions(name, partitions)], **self._bounded)
            await self._await(futures[name])
            await self._await_partitions(name, partitions)

    async def observe_topic(self, name: str) -> tuple[PartitionOffsets, ...]:
        """Return where a topic's partitions start and end, without any group. Raise TopicMissing or another failure."""
        found = (await self._describe_topics([name]))[name]
        if isinstance(found, KafkaFailure):
            raise found
        counts = {name: len(found.partitions)}
        starts, ends = await asyncio.gather(
            self._list_offsets(counts, OffsetSpec.earliest()),
            self._list_offsets(counts, OffsetSpec.latest()),
        )
        observed = _build_observation(name, starts, ends, dict.fromkeys(range(counts[name])))
        if isinstance(observed, KafkaFailure):
            raise observed
        return observed

    async def observe_group(self, group: str, topic: str) -> tuple[PartitionOffsets, ...]:
        """Return where a topic's partitions start and end and what the group committed, ordered by partition.

        Raise TopicMissing, or another KafkaFailure. A group that never committed is no error.
        """
        found = (await self.observe_groups([(group, topic)]))[group, topic]
        if isinstance(found, KafkaFailure):
            raise found
        return found

    async def observe_groups(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Observation]:
        """Return the same for many (group, topic) pairs in a few requests.

        A pair's failure is its value, so that one missing topic does not hide the others; nothing is raised.
        """
        topics = await self._describe_topics(sorted({topic for _, topic in pairs}))
        counts = {name: len(found.partitions) for name, found in topics.items() if not isinstance(found, KafkaFailure)}
        known = [pair for pair in pairs if pair[1] in counts]
        # A request for commits that is answered "not coordinator" makes librdkafka (2.16.0 and before) dereference NULL
        # and takes the process with it; a description of the group survives the same answer, so it goes first.
        groups = await self._describe_groups(sorted({group for group, _ in known}))
        lost = [pair for pair in known if isinstance(groups[pair[0]], KafkaFailure)]
        known = [pair for pair in known if pair not in lost]
        # Commits are read before the ends: the other way round, a busy group could seem ahead of its own topic.
        commits = await self._list_committed(known, counts)
        starts, ends = await asyncio.gather(
            self._list_offsets(counts, OffsetSpec.earliest()),
            self._list_offsets(counts, OffsetSpec.latest()),
        )
        observed: dict[tuple[str, str], Observation] = {pair: topics[pair[1]] for pair in pairs}
        for pair, committed in zip(known, commits, strict=True):
            observed[pair] = _build_observation(pair[1], starts, ends, committed)
        return {**observed, **{pair: groups[pair[0]] for pair in lost}}

    async def group_members(self, group: str) -> int:
        """Return how many members the group has now; a group nobody heard of has none. Raise KafkaFailure."""
        found = (await self._describe_groups([group]))[group]
        if isinstance(found, KafkaFailure):
            raise found
        return len(found.members) if found else 0

    async def close(self) -> None:
        """Let the client go. Calling it twice is fine; any other call afterwards raises KafkaUnavailable."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.poll, 0)  # hands over what librdkafka still wants to say

    @property
    def _open(self) -> AdminClient:
        if self._client is None:
            raise KafkaUnavailable("this admin client is closed")
        if self._unanswered_since is not None and time.monotonic() - self._unanswered_since >= RENEW_SECONDS:
            self._unanswered_since = None
            given_up, self._client = [self._client], self._build()
            # Whoever is the last to hold a client waits until it is gone.
            threading.Thread(target=given_up.clear, name="kafka-admin-farewell", daemon=True).start()
        return self._client

    def _build(self) -> AdminClient:
        try:
            return AdminClient(self._config, logger=logging.getLogger("tocsin.librdkafka"))
        except KafkaException as error:
            raise translate_exception(error) from error

    @property
    def _bounded(self) -> dict[str, float]:
        return {"request_timeout": self._timeout_seconds}

    async def _describe_topics(self, names: Sequence[str]) -> dict[str, Any]:
        if not names:
            return {}
        futures = self._open.describe_topics(TopicCollection(list(names)), **self._bounded)
        return dict(zip(names, await self._await_each(futures[name] for name in names), strict=True))

    async def _await_partitions(self, name: str, count: int) -> None:
        """Wait until a topic is seen with its partitions: the controller answers before brokers have heard of it."""
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        while asyncio.get_running_loop().time() < deadline:
            found = (await self._describe_topics([name]))[name]
            is_there = not isinstance(found, KafkaFailure) and len(found.partitions) >= count
            if is_there or isinstance(found, NotAuthorized):  # who may create need not be one who may describe
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _describe_config(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            entries = await self._await(self._open.describe_configs([resource], **self._bounded)[resource])
        except NotAuthorized:
            return {}
        return {key: entry.value for key, entry in entries.items() if entry.value is not None}

    async def _list_offsets(
        self, counts: Mapping[str, int], spec: OffsetSpec
    ) -> dict[tuple[str, int], int | KafkaFailure]:
        wanted = {TopicPartition(topic, number): spec for topic, count in counts.items() for number in range(count)}
        if not wanted:
            return {}
        futures = self._open.list_offsets(wanted, **self._bounded)
        found = await self._await_each(futures.values())
        return {
            (each.topic, each.partition): value if isinstance(value, KafkaFailure) else value.offset
            for each, value in zip(futures, found, strict=True)
        }

    async def _describe_groups(self, groups: Sequence[str]) -> dict[str, Any]:
        """Return each group's description, None for one nobody knows, or its KafkaFailure.

        Coordinators that start or move are waited for: librdkafka repeats other requests by itself, but not this one.
        """
        clock = asyncio.get_running_loop().time
        deadline, answers, asked = clock() + self._timeout_seconds, dict[str, Any](), list(groups)
        while asked:
            futures = self._open.describe_consumer_groups(asked, **self._bounded)
            found = await self._await_each([futures[group] for group in asked], fine=Code.GROUP_ID_NOT_FOUND)
            answers |= dict(zip(asked, found, strict=True))
            asked = [group for group in asked if getattr(answers[group], "code", 0) in COORDINATOR_PASSES]
            if clock() > deadline:
                break
            if asked:
                await asyncio.sleep(AGAIN_SECONDS)
        return answers

    async def _list_committed(
        self, pairs: Sequence[tuple[str, str]], counts: Mapping[str, int]
    ) -> list[dict[int, Commit | None] | KafkaFailure]:
        futures: list[Future[Any]] = []
        for group, topic in pairs:
            partitions = [TopicPartition(topic, number) for number in range(counts[topic])]
            request = ConsumerGroupTopicPartitions(group, partitions)
            futures += self._open.list_consumer_group_offsets([request], **self._bounded).values()
        return [_read_committed(found) for found in await self._await_each(futures)]

    async def _await(self, future: Future[Any], *, fine: Code | None = None) -> Any:
        """Await one request; raise its failure. The error code `fine` is no failure, and gives None."""
        (result,) = await self._await_each([future], fine=fine)
        if isinstance(result, KafkaFailure):
            raise result
        return result

    async def _await_each(self, futures: Iterable[Future[Any]], *, fine: Code | None = None) -> list[Any]:
        """Await requests together; a KafkaFailure stands where a result would.

        In a thread: a question about a thousand topics has ten thousand answers, and `asyncio.wrap_future` would wake
        the loop for each.
        """
        waiting = list(futures)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout_seconds + GRACE_SECONDS
        while (await asyncio.to_thread(wait, waiting, EVENT_SECONDS)).not_done and clock() < deadline:
            if isinstance(self._read_failure(), NotAuthenticated):
                break  # librdkafka would go on trying until the deadline, and then say "timed out"
        return [self._settle(each, fine) for each in waiting]

    def _settle(self, waiting: Future[Any], fine: Code | None) -> Any:
        if not waiting.done():
            waiting.cancel()
            return self._explain(translate(Code.TIMED_OUT, "no answer in time"))
        error = waiting.exception()
        if error is None:
            self._failure = self._unanswered_since = None
            return waiting.result()
        if not isinstance(error, KafkaException):
            raise error
        cause = error.args[0]
        return None if fine is not None and cause.code() == fine else self._explain(translate_exception(error))

    def _explain(self, failure: KafkaFailure) -> KafkaFailure:
        """Return why a request got no answer, where librdkafka said it in an event."""
        if not isinstance(failure, KafkaUnavailable):
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = time.monotonic()
        cause = self._read_failure()
        if cause is None or not isinstance(failure, KafkaUnavailable):
            return failure
        return type(cause)(f"{failure}: {cause}", advice=cause.advice, code=cause.code)

    def _read_failure(self) -> KafkaFailure | None:
        """Return the connection's last failure, if it is recent; a success in between has erased it."""
        self._open.poll(0)
        return self._read_recent()

    def _read_recent(self) -> KafkaFailure | None:
        is_recent = time.monotonic() - self._failed_at < FAILURE_RECENT_SECONDS
        return self._failure if is_recent else None

    def _on_error(self, error: KafkaError) -> None:
        self._failure = choose_cause(self._read_recent(), translate_error(error))
        self._failed_at = time.monotonic()


def _read_committed(found: Any) -> dict[int, Commit | None] | KafkaFailure:
    if isinstance(found, KafkaFailure):
        return found
    for each in found.topic_partitions:
        if each.error:
            return translate_error(each.error)
    return {
        each.partition: None if each.offset == NO_OFFSET else Commit(each.offset, each.metadata or "")
        for each in found.topic_partitions
    }


def _build_observation(
    topic: str,
    starts: Mapping[tuple[str, int], int | KafkaFailure],
    ends: Mapping[tuple[str, int], int | KafkaFailure],
    committed: Mapping[int, Commit | None] | KafkaFailure,
) -> Observation:
    """Put the three answers about a topic together; the first failure among them is the observation."""
    if isinstance(committed, KafkaFailure):
        return committed
    offsets = []
    for number, commit in sorted(committed.items()):
        start, end = starts[topic, number], ends[topic, number]
        if isinstance(start, KafkaFailure):
            return start
        if isinstance(end, KafkaFailure):
            return end
        where = (commit.offset, read_leads(commit.metadata)) if commit else (None, {})
        offsets.append(PartitionOffsets(number, start, end, *where))
    return tuple(offsets)
