"""Records of a topic without a group: `TopicReader` follows a topic's end, `RangeReader` reads a given stretch of it.

A member of a group was refused for this: it would need rights on that group, rebalances, and an offset nobody wants.
Both work with synchronous `confluent_kafka.Consumer` in one worker thread at a time, on partitions assigned by hand.
`TopicReader` asks where they end over a second one, because on one connection every question would wait behind a fetch
(half a second each). `RangeReader` never asks: librdkafka's "partition EOF" tells it where a stretch ends, holes
(compaction, transaction markers) included.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tocsin_core.assignment import size_bytes
from tocsin_core.connection import build_client_config, check_files, choose_cause, translate
from tocsin_core.errors import KafkaFailure, KafkaUnavailable
from tocsin_core.kafka_message import consume, read_message
from tocsin_core.message import Record
from tocsin_core.settings import KafkaConnection

BATCH_RECORDS = 1_000
POLL_SECONDS = 0.1
TIMEOUT_SECONDS = 10.0
PROBE_SECONDS = 2.0
STRETCH_BYTES = 16 * 1_048_576
"""What one stretch holds where nobody says how much it may."""

RANGE_CONFIG: Mapping[str, str | int] = {
    "auto.offset.reset": "earliest",
    "fetch.wait.max.ms": 10,  # how long the broker holds an answer at the log's end, which every stretch may run into
    "fetch.max.bytes": 1_048_576,
    "fetch.queue.backoff.ms": 10,  # how soon a full queue is looked at again; the default is a second
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 1_024,
}


class TopicReader:
    """Reads one topic forward, from its end as it is when the reading begins."""

    def __init__(self, connection: KafkaConnection, topic: str, *, client_id: str) -> None:
        """Prepare to read `topic`. Raise SettingsError or KafkaFailure if the connection itself cannot work."""
        self._topic = topic
        self._positions: dict[int, int] = {}
        self._lock = asyncio.Lock()
        self._consumer = _open(connection, client_id)
        self._asking = _open(connection, client_id)

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
            messages = consume(self._consumer, BATCH_RECORDS, wait_seconds=POLL_SECONDS)
            records += [record for message in messages if (record := self._receive(message)) is not None]
        return records

    def _is_behind(self, ends: Mapping[int, int]) -> bool:
        return any(self._positions[partition] < end for partition, end in ends.items())

    def _receive(self, message: Message) -> Record | None:
        partition = message.partition() or 0
        if _is_end(message):
            self._positions[partition] = max(self._positions[partition], message.offset() or 0)
            return None
        self._positions[partition] = (message.offset() or 0) + 1
        return read_message(message)


class Stretch(NamedTuple):
    """A piece of one partition: what stands in it, and where reading goes on. No records: that is the log's end."""

    records: list[Record]
    next_offset: int


class Room(NamedTuple):
    """How much a stretch may hold."""

    max_records: int
    max_bytes: int


class RangeReader:
    """Reads given stretches of any partitions, one at a time, and holds little: at most four fetches of 1 MiB."""

    def __init__(self, connection: KafkaConnection, *, client_id: str) -> None:
        """Prepare the client. Raise SettingsError or KafkaFailure if the connection itself cannot work."""
        self._failure: KafkaFailure | None = None
        self._place: tuple[str, int, int] | None = None
        """Topic, partition and offset that would come next, with what librdkafka has prefetched; else None."""
        self._ahead: deque[Message] = deque()
        """What librdkafka has returned already of what follows that place: the last stretch was full."""
        self._is_closing = threading.Event()
        # One thread, not a lock: a read that is cancelled still ends before the next one or the closing begins.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-range-reader")
        self._consumer = _open(connection, client_id, **RANGE_CONFIG, error_cb=self._on_error)

    async def read(
        self,
        topic: str,
        partition: int,
        start: int,
        *,
        max_records: int,
        max_bytes: int = STRETCH_BYTES,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Stretch:
        """Return at most `max_records` from `start` on, and where to go on: past holes, never below `start`.

        It takes no further record once keys, values and headers have `max_bytes`, so it exceeds them by one at most.
        Where retention has deleted `start`, reading begins at the log's first offset. It ends early at the log's end,
        and after `timeout_seconds` with what has come by then. Raise KafkaFailure if the broker refuses, or if nothing
        at all has come.
        """
        work = partial(self._read, topic, partition, start, Room(max_records, max_bytes), timeout_seconds)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Let the client go; a read that is under way ends with KafkaUnavailable."""
        self._is_closing.set()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._consumer.close)
        self._thread.shutdown()

    def _read(self, topic: str, partition: int, start: int, room: Room, timeout_seconds: float) -> Stretch:
        if self._place != (topic, partition, start):
            self._ahead.clear()
            self._consumer.assign([TopicPartition(topic, partition, start)])
        self._place = None
        try:
            stretch, is_end = self._collect(start, room, time.monotonic() + timeout_seconds)
        except KafkaFailure:
            self._rest()
            raise
        if is_end or self._is_exhausted(topic, partition, stretch):
            self._rest()
        else:
            self._place = (topic, partition, stretch.next_offset)
        if not is_end and not stretch.records:
            raise self._explain_silence(topic, timeout_seconds)  # holes that were skipped so far stay skipped
        return stretch

    def _rest(self) -> None:
        """Ask for nothing more: librdkafka would do so a hundred times a second."""
        self._consumer.unassign()
        self._ahead.clear()

    def _collect(self, start: int, room: Room, deadline: float) -> tuple[Stretch, bool]:
        """Return what came before the deadline, and whether it ends where the log does."""
        records: list[Record] = []
        position, held_bytes = start, 0
        while len(records) < room.max_records and held_bytes < room.max_bytes and time.monotonic() < deadline:
            if (message := self._receive(room.max_records - len(records))) is None:
                continue
            offset = message.offset() or 0
            if _is_end(message):
                return Stretch(records, max(position, offset)), True
            if offset < position:  # the log ends below `start`, and librdkafka went back to its beginning
                return Stretch(records, position), True
            records.append(record := read_message(message))
            position, held_bytes = offset + 1, held_bytes + size_bytes(record)
        return Stretch(records, position), False

    def _receive(self, most: int) -> Message | None:
        """Return the next message, or None if none comes for a moment; at most so many are taken from librdkafka."""
        if not self._ahead:
            self._check_open()
            self._ahead.extend(consume(self._consumer, most, wait_seconds=POLL_SECONDS))
            if self._ahead:
                self._failure = None
        return self._ahead.popleft() if self._ahead else None

    def _is_exhausted(self, topic: str, partition: int, stretch: Stretch) -> bool:
        """Return whether the last record of the stretch was the log's last, as far as the last fetch has told."""
        _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        return bool(stretch.records) and stretch.next_offset >= end

    def _check_open(self) -> None:
        if self._is_closing.is_set():
            raise KafkaUnavailable("this reader is closed")

    def _explain_silence(self, topic: str, timeout_seconds: float) -> KafkaFailure:
        """Return why nothing came: librdkafka takes ten seconds to call a topic missing, so it is asked for here."""
        try:
            found = self._consumer.list_topics(topic, PROBE_SECONDS).topics[topic]
        except (KafkaException, KeyError):
            return self._failure or KafkaUnavailable(f"no broker answered within {timeout_seconds:g} s")
        if found.error is not None:
            return _translate(found.error)
        return KafkaUnavailable(f"{topic}: no record came within {timeout_seconds:g} s")

    def _on_error(self, error: KafkaError) -> None:
        self._failure = choose_cause(self._failure, _translate(error))


def _open(connection: KafkaConnection, client_id: str, **more: Any) -> Consumer:
    check_files(connection.tls)
    config = {
        **build_client_config(connection),
        "client.id": client_id,
        "group.id": client_id,  # librdkafka wants a name; without a subscription nobody joins anything
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
        **more,
    }
    try:
        return Consumer(config, logger=logging.getLogger("tocsin.librdkafka"))
    except KafkaException as error:
        raise _translate(error.args[0]) from error


def _is_end(message: Message) -> bool:
    """Return whether a message only says that the partition ends here. Raise KafkaFailure if it is an error."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - public, despite its name
        raise _translate(error)
    return error is not None


def _translate(error: KafkaError) -> KafkaFailure:
    return translate(error.code(), error.str())
