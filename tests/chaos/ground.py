"""What the pipelines stand on: a real Kafka and real stores, which can be killed, stalled and emptied.

The broker lets groups choose short session timeouts, so that a crash is noticed while a scenario runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from redis.asyncio import Redis

from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.embedded.process import find_free_ports
from tocsin_cli.embedded.valkey import EmbeddedValkey

HOST = "127.0.0.1"
LIBRDKAFKA = logging.getLogger("chaos.librdkafka")
"""Where the suite's own clients complain; nobody listens: a broker that is killed on purpose is no news."""
LIBRDKAFKA.addHandler(logging.NullHandler())
LIBRDKAFKA.propagate = False
MAX_HEARTBEAT_SECONDS = 3.0
SHORT_SESSIONS = {
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.min.session.timeout.ms": "1000",
}
SHORT_LIFE = {"broker.session.timeout.ms": "5000", "broker.heartbeat.interval.ms": "1000"}
"""A broker that was killed is not taken back before its last life has expired. Shorter, and a busy machine would fence
one that lives."""


class Broker:
    """One Kafka that keeps its data and its address through every crash. It runs while it is entered."""

    def __init__(self, directory: Path, *, properties: Mapping[str, str] = MappingProxyType({})) -> None:
        self._directory = directory
        self._properties = {**SHORT_SESSIONS, **properties}
        self._port = find_free_ports(HOST, 1)[0]
        self._server = self._build()

    @property
    def address(self) -> str:
        """Return `host:port`."""
        return self._server.bootstrap_servers

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._server.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._server.stop)

    async def crash(self, away_seconds: float) -> None:
        """Kill it, and start it again on the same data."""
        os.kill(self._server.pid, signal.SIGKILL)
        await asyncio.to_thread(self._server.stop)
        await asyncio.sleep(away_seconds)
        self._server = self._build()
        await asyncio.to_thread(self._server.start)

    async def stall(self, seconds: float) -> None:
        """Let it hang: connections stay open and nothing is answered."""
        os.kill(self._server.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self._server.pid, signal.SIGCONT)

    def _build(self) -> EmbeddedKafka:
        return EmbeddedKafka(data_dir=self._directory, port=self._port, properties=self._properties)


class Store:
    """One Valkey of one pipeline. It knows how many uncertain sends were counted, through every flush."""

    def __init__(self, directory: Path, pipeline: str) -> None:
        self._directory = directory
        self._port = find_free_ports(HOST, 1)[0]
        self._server = self._build()
        self._counter = f"tocsin:{{{pipeline}}}:uncertain"
        self._forgotten = 0
        self.url = f"redis://{HOST}:{self._port}/0"

    async def start(self) -> None:
        """Start it and return when it answers."""
        await asyncio.to_thread(self._server.start)

    async def stop(self) -> None:
        """Stop it for good."""
        await asyncio.to_thread(self._server.stop)

    async def crash(self, away_seconds: float) -> None:
        """Kill it, and start it again on the same data."""
        os.kill(self._server.pid, signal.SIGKILL)
        await asyncio.to_thread(self._server.stop)
        await asyncio.sleep(away_seconds)
        self._server = self._build()
        await self.start()

    async def flush(self) -> None:
        """Empty it, keeping the count of what it had counted in the same step."""
        async with Redis.from_url(self.url) as redis, redis.pipeline(transaction=True) as pipe:
            pipe.get(self._counter)
            pipe.flushall()
            counted, _ = await pipe.execute()
        self._forgotten += int(counted or 0)

    async def count_uncertain(self) -> int:
        """Return how many sends were repeated although an earlier one may have arrived."""
        async with Redis.from_url(self.url) as redis:
            return self._forgotten + int(await redis.get(self._counter) or 0)

    def _build(self) -> EmbeddedValkey:
        return EmbeddedValkey(data_dir=self._directory, port=self._port)


async def set_session_timeout(address: str, group: str, seconds: float) -> None:
    """Set when a silent member of a group under KIP-848 counts as gone; classic members bring their own."""
    values = {
        "consumer.session.timeout.ms": str(int(seconds * 1000)),
        "consumer.heartbeat.interval.ms": str(int(min(MAX_HEARTBEAT_SECONDS, seconds / 5) * 1000)),
    }
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in values.items()]
    client = AdminClient({"bootstrap.servers": address}, logger=LIBRDKAFKA)
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=entries)
    [future] = client.incremental_alter_configs([resource]).values()
    await asyncio.to_thread(future.result, 30.0)
