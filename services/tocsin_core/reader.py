"""A look into a topic without a group: for counting and for showing, never for delivering.

A member of a group was refused for this: it would need rights on that group, rebalances, and an offset nobody wants.
Two synchronous `confluent_kafka.Consumer` in one worker thread at a time: one reads partitions assigned by hand,
the other asks where they end, because on one connection every question would wait behind a fetch (half a second each).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tocsin_core.connection import build_client_config, translate
from tocsin_core.consumer import read_message
from tocsin_core.errors import KafkaFailure
from tocsin_core.message import Record
from tocsin_core.settings import KafkaConnection

BATCH_RECORDS = 1_000
POLL_SECONDS = 0.1
TIMEOUT_SECONDS = 10.0


class TopicReader:
    """Reads one topic forward, from its end as it is when the reading begins."""

    def __init__(self, connection: KafkaConnection, topic: str, *, client_id: str) -> None:
        """Prepare to read `topic`. Raise KafkaFailure if the connection itself cannot work."""
        self._topic = topic
        self._positions: dict[int, int] = {}
        self._lock = asyncio.Lock()
        config = {
            **build_client_config(connection),
            "client.id": client_id,
            "group.id": client_id,  # librdkafka wants a name; without a subscription nobody joins anything
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
        }
        try:
            self._consumer = Consumer(config, logger=logging.getLogger("tocsin.librdkafka"))
            self._asking = Consumer(config, logger=logging.getLogger("tocsin.librdkafka"))
        except KafkaException as error:
            raise _translate(error.args[0]) from error

    async def begin(self) -> None:
        """Take the topic's end as the place to read from. Raise KafkaFailure if the broker does not say it."""
        async with self._lock:
            self._positions = await asyncio.to_thread(self._find_ends)
            self._assign()

    async def read_new(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> list[Record]:
        """Return the records up to the topic's end that were not returned yet; what is late comes the next time.

        Raise KafkaFailure if the broker refuses or does not answer.
        """
        async with self._lock:
            return await asyncio.to_thread(self._read_new, timeout_seconds)

    async def close(self) -> None:
        """Let the client go."""
        async with self._lock:
            await asyncio.to_thread(self._consumer.close)
            await asyncio.to_thread(self._asking.close)

    def _find_ends(self) -> dict[int, int]:
        """Return where each partition ends; a topic made a moment ago may have no leaders yet, so ask again."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return self._ask_for_ends()
            except KafkaFailure as failure:
                if not failure.retriable or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def _ask_for_ends(self) -> dict[int, int]:
        try:
            found = self._asking.list_topics(self._topic, TIMEOUT_SECONDS).topics[self._topic]
            if found.error is not None:
                raise _translate(found.error)
            wanted = [TopicPartition(self._topic, each, OFFSET_END) for each in found.partitions]
            ends = self._asking.offsets_for_times(wanted, TIMEOUT_SECONDS)
        except KafkaException as error:
            raise _translate(error.args[0]) from error
        if failed := [each.error for each in ends if each.error is not None]:
            raise _translate(failed[0])
        return {each.partition: each.offset for each in ends}

    def _assign(self) -> None:
        self._consumer.assign([TopicPartition(self._topic, each, at) for each, at in self._positions.items()])

    def _read_new(self, timeout_seconds: float) -> list[Record]:
        ends = self._find_ends()
        if new := ends.keys() - self._positions.keys():  # the topic has grown
            self._positions |= dict.fromkeys(new, 0)
            self._assign()
        records: list[Record] = []
        deadline = time.monotonic() + timeout_seconds
        while self._is_behind(ends) and time.monotonic() < deadline:
            messages = self._consumer.consume(1, POLL_SECONDS)
            messages += self._consumer.consume(BATCH_RECORDS, 0) if messages else []
            records += [record for message in messages if (record := self._receive(message)) is not None]
        return records

    def _is_behind(self, ends: Mapping[int, int]) -> bool:
        return any(self._positions[partition] < end for partition, end in ends.items())

    def _receive(self, message: Message) -> Record | None:
        error, partition = message.error(), message.partition() or 0
        if error is None:
            self._positions[partition] = (message.offset() or 0) + 1
            return read_message(message)
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name, public in effect
            raise _translate(error)
        self._positions[partition] = max(self._positions[partition], message.offset() or 0)
        return None


def _translate(error: KafkaError) -> KafkaFailure:
    return translate(error.code(), error.str())
