"""A pipeline without its ingestion: topics on a real broker, users, a config, and consumers to start and stop."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tocsin_consumer.worker import serve
from tocsin_core.admin import KafkaAdmin
from tocsin_core.codec import encode, make_traceparent
from tocsin_core.kafka_message import read_message
from tocsin_core.message import Notification, Record
from tocsin_core.retry import RETRY_DELAYS_SECONDS, Tier, build_tiers
from tocsin_core.settings import KafkaConnection, Settings

PARTITIONS = 4
USERS = 50


@dataclass
class World:
    """One pipeline's surroundings."""

    bootstrap: str
    directory: Path
    topic: str = field(default_factory=lambda: f"test-{secrets.token_hex(6)}")
    dead_letter_topic: str = ""
    retry_delays_seconds: tuple[int, ...] = RETRY_DELAYS_SECONDS
    processes: list[ConsumerProcess] = field(default_factory=list)

    async def create(self) -> World:
        """Create the topics and the users file."""
        self.dead_letter_topic = f"{self.topic}.dlq"
        users = {str(number): {"name": f"User {number}"} for number in range(1, USERS + 1)}
        (self.directory / "users.yaml").write_text(json.dumps(users), encoding="utf-8")
        await self.create_topic(self.topic, PARTITIONS)
        await self.create_topic(self.dead_letter_topic, 1)
        return self

    async def create_retry_topics(self, *delays_seconds: int, partitions: int = PARTITIONS) -> None:
        """Create retry topics, and let consumers use these delays from now on."""
        self.retry_delays_seconds = delays_seconds
        for tier in self.tiers:
            await self.create_topic(tier.topic, partitions)

    @property
    def tiers(self) -> tuple[Tier, ...]:
        return build_tiers(self.topic, self.retry_delays_seconds)

    async def create_topic(self, name: str, partitions: int, **config: int) -> None:
        """Create a topic; `max_message_bytes=100` is its `max.message.bytes`."""
        admin = KafkaAdmin(KafkaConnection(brokers=[self.bootstrap]), client_id="tests")
        texts = {key.replace("_", "."): str(value) for key, value in config.items()}
        await admin.create_topic(name, partitions=partitions, config=texts)
        await admin.close()

    def build_settings(self, channels: Iterable[Mapping[str, Any]], **sections: Mapping[str, Any]) -> Settings:
        return Settings.model_validate(self._build_config(channels, **sections))

    def _build_config(self, channels: Iterable[Mapping[str, Any]], **sections: Mapping[str, Any]) -> dict[str, Any]:
        kafka = {"brokers": self.bootstrap, "topic": self.topic, "consumer_group": f"{self.topic}-group"}
        consumer = {"channels": [dict(channel) for channel in channels], "drain_seconds": 10}
        return {
            "pipeline": {"namespace": "tests", "name": self.topic},
            "kafka": kafka | {"session_timeout_seconds": 6} | dict(sections.pop("kafka", {})),
            "users": {"file": str(self.directory / "users.yaml")},
            "consumer": consumer | dict(sections.pop("consumer", {})),
            "health": {"host": "127.0.0.1", "port": 0},
            "delivery": {"retry_delays_seconds": self.retry_delays_seconds} | dict(sections.pop("delivery", {})),
            **sections,
        }

    @asynccontextmanager
    async def consuming(self, channels: Iterable[Mapping[str, Any]], **sections: Any) -> AsyncIterator[asyncio.Event]:
        """Run the consumer service inside this process; leaving stops it as SIGTERM would."""
        stop = asyncio.Event()
        service = asyncio.create_task(serve(self.build_settings(channels, **sections), stop))
        try:
            yield stop
        finally:
            stop.set()
            assert await service == 0

    async def start_process(self, channels: Iterable[Mapping[str, Any]], **sections: Any) -> ConsumerProcess:
        """Run the consumer service as a process of its own, the way a pod does."""
        consumer = ConsumerProcess(await self.spawn("consume", channels, **sections))
        self.processes.append(consumer)
        return consumer

    async def spawn(
        self, role: str, channels: Iterable[Mapping[str, Any]], **sections: Any
    ) -> asyncio.subprocess.Process:
        """Start a service of this pipeline."""
        config = self.directory / f"config-{secrets.token_hex(4)}.yaml"
        config.write_text(json.dumps(self._build_config(channels, **sections)), encoding="utf-8")
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tocsin_cli", role, "--config", str(config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1_000_000,
        )

    async def close(self) -> None:
        """Kill the processes that a test left behind."""
        for process in self.processes:
            await process.kill()

    def produce(self, notifications: Iterable[Notification], *, accepted_at: datetime | None = None) -> None:
        """Produce what ingestion would have produced, and wait until it is stored."""
        for notification in notifications:
            encoded = encode(
                notification,
                source="/pipelines/tests/world",
                traceparent=make_traceparent(),
                accepted_at=accepted_at or datetime.now(UTC),
            )
            self.produce_raw(encoded.value, encoded.key, encoded.headers, flush=False)
        assert self._producer.flush(30) == 0

    def produce_raw(
        self,
        value: bytes | None,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        *,
        topic: str = "",
        flush: bool = True,
    ) -> None:
        self._producer.produce(topic or self.topic, value, key, headers=list(headers or []))
        if flush:
            assert self._producer.flush(30) == 0

    @cached_property
    def _producer(self) -> Producer:
        config: dict[str, str | int] = {"partitioner": "murmur2_random", "linger.ms": 1, "message.max.bytes": 10**7}
        return Producer({"bootstrap.servers": self.bootstrap, **config})

    async def read_dead_letters(self, count: int, *, timeout_seconds: float = 60.0) -> list[Record]:
        """Return the dead letters once there are so many. Raise AssertionError if they do not come in time."""
        return await asyncio.to_thread(self._read, self.dead_letter_topic, count, timeout_seconds)

    async def read_topic(self, topic: str, count: int, *, timeout_seconds: float = 60.0) -> list[Record]:
        """Return the records of any topic once there are so many."""
        return await asyncio.to_thread(self._read, topic, count, timeout_seconds)

    def _read(self, topic: str, count: int, timeout_seconds: float) -> list[Record]:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": f"reader-{secrets.token_hex(4)}"})
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        records: list[Record] = []
        deadline = time.monotonic() + timeout_seconds
        while len(records) < count and time.monotonic() < deadline:
            records += [read_message(message) for message in consumer.consume(count, 0.2) if message.error() is None]
        consumer.close()
        assert len(records) >= count, f"{len(records)} of {count} records in {topic} within {timeout_seconds} s"
        return records

    def wait_until_owned(self, topic: str, *, timeout_seconds: float = 60.0) -> None:
        """Return once members of the group own partitions of a topic."""
        group = f"{self.topic}-group"
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        owned: set[str] = set()
        deadline = time.monotonic() + timeout_seconds
        while topic not in owned:
            assert time.monotonic() < deadline, f"nobody owns a partition of {topic}"
            members = admin.describe_consumer_groups([group])[group].result(10).members
            owned = {each.topic for member in members for each in member.assignment.topic_partitions}
            time.sleep(0.1)

    def committed(self) -> int:
        """Return the sum of the group's committed offsets."""
        group = f"{self.topic}-group"
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        partitions = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        offsets = consumer.committed(partitions, 10)
        consumer.close()
        return sum(max(0, each.offset) for each in offsets)


class ConsumerProcess:
    """A consumer in a process of its own, and what it logs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Condition()
        self.lines: list[dict[str, Any]] = []
        self._reader = asyncio.create_task(self._read())

    async def wait_for(self, event: str, *, count: int = 1, timeout_seconds: float = 60.0) -> list[dict[str, Any]]:
        """Return the lines with this event once there are so many."""
        async with asyncio.timeout(timeout_seconds), self._changed:
            await self._changed.wait_for(lambda: len(self._find(event)) >= count)
        return self._find(event)

    async def wait_end(self, notification_id: str, *, timeout_seconds: float = 60.0) -> dict[str, Any]:
        """Return the line that says how a notification ended."""

        def find() -> dict[str, Any]:
            ours = (line for line in self.lines if line.get("notification_id") == notification_id)
            return next((line for line in ours if line["event"].startswith("notification ")), {})

        async with asyncio.timeout(timeout_seconds), self._changed:
            return await self._changed.wait_for(find)

    async def terminate(self) -> int:
        """Ask it to stop as kubelet does, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return await self._end()

    async def kill(self) -> None:
        """End it as a crash does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._end()

    async def _end(self) -> int:
        code = await self._process.wait()
        await self._reader
        return code

    def _find(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == event]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._changed:
                self.lines.append(_parse(line))
                self._changed.notify_all()


def _parse(line: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"event": line.decode(errors="replace").rstrip()}
    return content


def webhook(url: str, name: str = "hook", **options: Any) -> dict[str, Any]:
    """Return the settings of a webhook channel."""
    return {"name": name, "type": "Webhook", "webhook": {"url": url, **options}}


def notifications(count: int, *, recipients: int = 20, start: int = 0, **fields: Any) -> list[Notification]:
    """Return notifications `n<start>`… to recipients in turn; a recipient's messages count up."""
    return [
        Notification(id=f"n{number}", from_id="1", to_id=str(number % recipients + 1), message=str(number), **fields)
        for number in range(start, start + count)
    ]
