"""Numbered notifications into a topic, and which of them Kafka has acknowledged: what the oracle calls sent."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, Message, Producer

from chaos.ground import LIBRDKAFKA
from chaos.oracle import Sent
from tocsin_core.codec import encode, make_traceparent
from tocsin_core.message import Notification

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TICK_SECONDS = 0.05
DELIVERY_TIMEOUT_SECONDS = 300.0


class Load:
    """Produces as ingestion does: keyed by recipient, acks=all, idempotent; each recipient's messages count up."""

    def __init__(self, broker: str, topic: str, *, recipients: int, channels: Iterable[str]) -> None:
        self.sent: list[Sent] = []
        self._topic = topic
        self.channels = tuple(channels)
        self._recipients = [str(number) for number in range(1, recipients + 1)]
        self._sequences: Counter[str] = Counter()
        self._refused: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": broker,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,
                "delivery.timeout.ms": int(DELIVERY_TIMEOUT_SECONDS * 1000),
            },
            logger=LIBRDKAFKA,
        )

    def produce(self, recipient: str) -> None:
        """Produce the recipient's next notification."""
        self._sequences[recipient] += 1
        sequence = self._sequences[recipient]
        sent = Sent(f"{recipient}-{sequence}", recipient, sequence, self.channels)
        encoded = encode(
            Notification(id=sent.id, from_id="1", to_id=recipient, message=str(sequence)),
            source="/pipelines/chaos/load",
            traceparent=make_traceparent(),
            accepted_at=datetime.now(UTC),
        )
        self._producer.produce(
            self._topic,
            encoded.value,
            encoded.key,
            headers=list(encoded.headers),
            on_delivery=functools.partial(self._note, sent),
        )

    def produce_evenly(self, each: int) -> None:
        """Produce so many notifications to every recipient."""
        for _ in range(each):
            for recipient in self._recipients:
                self.produce(recipient)

    async def flush(self) -> None:
        """Wait until everything is acknowledged. Raise RuntimeError if Kafka refused anything."""
        await asyncio.to_thread(self._producer.flush, DELIVERY_TIMEOUT_SECONDS)
        if self._refused or len(self._producer):
            raise RuntimeError(f"Kafka did not take {self._refused[:3] or len(self._producer)}")

    @asynccontextmanager
    async def running(self, per_second: float, chance: random.Random) -> AsyncIterator[None]:
        """Produce at a steady rate, to recipients by lot, for as long as this is entered."""
        task = asyncio.create_task(self._run(per_second, chance))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.flush()

    async def _run(self, per_second: float, chance: random.Random) -> None:
        loop = asyncio.get_running_loop()
        began, produced = loop.time(), 0
        while True:
            due = int((loop.time() - began) * per_second)
            for _ in range(due - produced):
                self.produce(chance.choice(self._recipients))
            produced = due
            self._producer.poll(0)
            await asyncio.sleep(TICK_SECONDS)

    def _note(self, sent: Sent, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.sent.append(sent)
        else:
            self._refused.append(f"{sent.id}: {error.str()}")
