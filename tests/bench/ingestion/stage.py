"""One real Kafka for everybody, a topic per run, and the load on a contestant, with what it cost whom."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from bench.errors import BenchError
from bench.ingestion.contestants import USERS, Contestant, Server, run
from bench.proc import read_cpu_seconds, read_resident_megabytes
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_core.admin import KafkaAdmin
from tocsin_core.codec import decode
from tocsin_core.settings import KafkaConnection

PARTITIONS = 12
STORED_STATUS = "202"


@dataclass(frozen=True)
class Load:
    """What is asked of a server. `rate` 0 is a closed loop; `batch` 0 are single notifications."""

    path: str
    connections: int
    seconds: float
    rate: float = 0.0
    batch: int = 0
    ids: Path | None = None


@dataclass(frozen=True)
class Measured:
    """What came of it: per notification stored, the CPU of the server and of the broker."""

    contestant: str
    load: Load
    stored: int
    seconds: float
    server_microseconds: float
    broker_microseconds: float
    resident_megabytes: float
    answer: dict[str, Any]

    @property
    def per_second(self) -> float:
        """Return the notifications stored per second."""
        return self.stored / self.seconds


class Stage:
    """A broker, and the programs."""

    def __init__(self, kafka: EmbeddedKafka, binaries: Path, folder: Path) -> None:
        self.kafka = kafka
        self._binaries = binaries
        self._folder = folder

    @contextmanager
    def serve(self, contestant: Contestant) -> Iterator[tuple[Server, str]]:
        """Run a contestant on a topic of its own; yield it and the topic's name."""
        topic = f"bench-{secrets.token_hex(4)}"
        asyncio.run(self._create(topic))
        folder = self._folder / topic
        brokers = self.kafka.bootstrap_servers
        with run(contestant, binaries=self._binaries, folder=folder, brokers=brokers, topic=topic) as server:
            yield server, topic

    def measure(self, contestant: Contestant, server: Server, topic: str, load: Load) -> Measured:
        """Put the load on, and return what it cost. Raise BenchError if the topic does not hold what was answered."""
        before = self._read(server), self._count(topic)
        answer = self.press(server, load)
        after = self._read(server), self._count(topic)
        stored, accepted = after[1] - before[1], answer["accepted"]
        if stored != accepted or not accepted:
            raise BenchError(f"{contestant.name}: answered 202 for {accepted}, and the topic grew by {stored}: void")
        server_seconds, broker_seconds = (new - old for new, old in zip(after[0], before[0], strict=True))
        return Measured(
            contestant.name,
            load,
            stored,
            answer["seconds"],
            server_seconds / stored * 1e6,
            broker_seconds / stored * 1e6,
            read_resident_megabytes(server.process_id),
            answer,
        )

    def press(self, server: Server, load: Load) -> dict[str, Any]:
        """Put the load on and return what the load generator saw."""
        with self.start_load(server, load) as process:
            output, _ = process.communicate()
        if process.returncode:
            raise BenchError(f"the load generator ended with {process.returncode}")
        return dict(json.loads(output))

    @contextmanager
    def start_load(self, server: Server, load: Load) -> Iterator[subprocess.Popen[str]]:
        """Start the load and yield its process."""
        options = {
            "url": server.url + load.path,
            "connections": load.connections,
            "seconds": load.seconds,
            "rate": load.rate,
            "batch": load.batch,
            "users": USERS,
            "ids": load.ids or "",
        }
        command = [str(self._binaries / "load"), *(f"-{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _read(self, server: Server) -> tuple[float, float]:
        return read_cpu_seconds(server.process_id), read_cpu_seconds(self.kafka.pid)

    async def _create(self, topic: str) -> None:
        admin = KafkaAdmin(KafkaConnection(brokers=[self.kafka.bootstrap_servers]), client_id="bench")
        await admin.create_topic(topic, partitions=PARTITIONS)
        await admin.close()

    def _count(self, topic: str) -> int:
        reader = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": "bench"})
        try:
            ends = [reader.get_watermark_offsets(TopicPartition(topic, each), timeout=30) for each in range(PARTITIONS)]
            return sum(end for _, end in ends)
        finally:
            reader.close()

    def read_ids(self, topic: str) -> set[str]:
        """Return the ids of all notifications in a topic of Tocsin's."""
        reader = Consumer(
            {"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": "bench", "enable.auto.commit": False}
        )
        try:
            reader.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
            found: set[str] = set()
            expected, seen = self._count(topic), 0
            while seen < expected:
                messages = reader.consume(5_000, timeout=10)
                if not messages:
                    raise BenchError(f"{topic}: only {seen} of {expected} records could be read")
                seen += len(messages)
                found |= {decode(message.value()).id for message in messages}
            return found
        finally:
            reader.close()
