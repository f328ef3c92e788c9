"""The retry topics as they are: which of them are there, and how a delivery moves into one.

A record goes to the partition that its own had the number of, modulo what the retry topic has: records of one key stay
in order within a tier, whoever produced them and with whichever partitioner. It counts as moved when the broker has
acknowledged it; only then does the offset it came from go on.

Topics that are missing, or that this user may not use, are no reason to stop: retries then wait in their lanes, as they
would without any retry topics, and one line says what to grant or to create. A topic is looked for from time to time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tocsin_consumer import metrics
from tocsin_consumer.producer import Producer
from tocsin_core.errors import KafkaFailure, NotAuthorized, TopicMissing
from tocsin_core.logging import get_logger
from tocsin_core.message import Record
from tocsin_core.retry import Tier
from tocsin_core.retry_record import Deferral, build_retry_headers

LOOK_SECONDS = 300.0
LOOK_AGAIN_SECONDS = 15.0

_log = get_logger(__name__)


class RetryTopics:
    """The retry topics of one pipeline."""

    def __init__(self, producer: Producer, tiers: Sequence[Tier]) -> None:
        self._producer = producer
        self._all = tuple(tiers)
        self._partitions: dict[str, int] = {}
        """Those that can be seen."""
        self._absent: dict[str, KafkaFailure] = {}
        self._denied: dict[str, KafkaFailure] = {}
        """Those that the broker refused to write or to read: a look would not show that it does so no more."""
        self._said: frozenset[str] = frozenset()
        self._watching: asyncio.Task[None] | None = None
        self.on_change: Callable[[Sequence[str]], None] = lambda _: None
        """Called with the names of those that can be seen, when they are others than before."""

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Return the tiers that can be used at this moment, the shortest first."""
        return tuple(each for each in self._all if each.topic in self._partitions and each.topic not in self._denied)

    async def start(self) -> None:
        """Look once, then from time to time."""
        await self.look()
        self._watching = asyncio.create_task(self._keep_looking(), name="look for retry topics")

    async def close(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()

    async def defer(self, origin: Record, tier: Tier, deferral: Deferral) -> None:
        """Write the retry record; return once the broker has acknowledged it. Raise KafkaFailure if it does not."""
        count = self._partitions.get(tier.topic)
        partition = origin.partition % count if count else None
        headers = build_retry_headers(origin, deferral)
        try:
            await self._producer.send(tier.topic, origin.key, origin.value, headers, partition=partition)
        except (TopicMissing, NotAuthorized) as failure:
            self.refuse(tier.topic, failure)
            raise
        metrics.DEFERRALS.labels(deferral.channel, f"{tier.delay_seconds}s").inc()

    def refuse(self, topic: str, failure: KafkaFailure) -> None:
        """Take note that a topic cannot be written or read."""
        if isinstance(failure, NotAuthorized):
            self._denied[topic] = failure
        elif isinstance(failure, TopicMissing):
            self._absent[topic] = failure
            self._partitions.pop(topic, None)
        self._say()

    async def look(self) -> None:
        """Find out which topics are there; a broker that is away says nothing about that."""
        before = set(self._partitions)
        for tier, found in zip(self._all, await asyncio.gather(*map(self._count, self._all)), strict=True):
            if isinstance(found, int):
                self._partitions[tier.topic] = found
                self._absent.pop(tier.topic, None)
            elif not found.retriable:
                self._partitions.pop(tier.topic, None)
                self._absent[tier.topic] = found
        self._say()
        if self._partitions.keys() != before:
            self.on_change(sorted(self._partitions))

    async def _count(self, tier: Tier) -> int | KafkaFailure:
        try:
            return await self._producer.count_partitions(tier.topic)
        except KafkaFailure as failure:
            return failure

    async def _keep_looking(self) -> None:
        while True:
            is_complete = len(self._partitions) == len(self._all)
            await asyncio.sleep(LOOK_SECONDS if is_complete else LOOK_AGAIN_SECONDS)
            await self.look()

    def _say(self) -> None:
        unusable = self._absent | self._denied
        if unusable and unusable.keys() != self._said:
            names = ", ".join(sorted(unusable))
            _log.error(
                "retry topics cannot be used: retries wait in their lanes, and hold up what is behind them",
                topics=sorted(unusable),
                reason=str(next(iter(unusable.values()))),
                advice=f"create {names} with as many partitions as the topic has, and grant this user Describe, Read "
                "and Write on them; or let the operator manage the topic",
            )
        self._said = frozenset(unusable)
