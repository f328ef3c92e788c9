"""Ingestion and consumers of one pipeline, as processes with the image's own entry points.

Where a process listens is read from its own log line and from nowhere else: a port found free can be taken by another
session before our process has it, and then somebody else's process would answer for ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import msgspec
import yaml
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import Response

from tocsin_cli.dev.ports import ANY, HOST, prefer_port
from tocsin_cli.processes.child import Child, Command, Watch
from tocsin_core.errors import TocsinError
from tocsin_core.settings import KafkaSettings
from tocsin_operator.children.config import (
    CONFIG_FILE,
    CONSUMER_DRAIN_SECONDS,
    HEALTH_PORT,
    INGESTION_PORT,
)

ENTRY_POINT = "tocsin_cli.__main__"
INGESTION = "ingestion"
INGESTION_DRAIN_SECONDS = 2
"""Nobody but this session routes to it, so it need not wait for endpoints to forget it."""
KILL_AFTER_SECONDS = 5.0
"""What a process may take beyond its own drain."""
START_SECONDS = 60.0
CRASHES_ALLOWED = 3
PROBE_SECONDS = 2.0
OK = 200


class ServiceFailed(TocsinError):
    """A process of the pipeline does not start; the text ends with its own words."""


class Listening(msgspec.Struct, frozen=True):
    """The line in which a service says where it listens; a consumer has a port for its health alone."""

    health_port: int
    port: int = 0


class Services:
    """Starts the processes of one pipeline from one config.yaml; ports differ and come from the environment."""

    def __init__(
        self,
        root: Path,
        environment: Mapping[str, str],
        *,
        on_line: Callable[[str, bytes], None],
        on_remark: Callable[[str], None],
    ) -> None:
        self._config = root / "config" / CONFIG_FILE
        self._environment = dict(environment)
        self._on_line = on_line
        self._on_remark = on_remark
        self._listening: dict[str, Listening] = {}
        self._starts = 0
        self._ingestion_port = ANY
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        self._client = ClientBuilder().timeout(timedelta(seconds=PROBE_SECONDS)).no_proxy().build()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def url(self) -> str:
        """Return where ingestion serves, once it has been ready; a restart keeps the port."""
        return f"http://{HOST}:{self._ingestion_port}"

    def start_ingestion(self) -> Child:
        """Start the ingestion process."""
        return self._start(INGESTION, self._build_ingestion, INGESTION_DRAIN_SECONDS + KILL_AFTER_SECONDS)

    def start_consumer(self, name: str) -> Child:
        """Start one consumer process."""
        return self._start(name, lambda: self._build("consume", {}, ANY), CONSUMER_DRAIN_SECONDS + KILL_AFTER_SECONDS)

    def _start(self, name: str, build: Callable[[], Command], drain_seconds: float) -> Child:
        def build_afresh() -> Command:
            self._listening.pop(name, None)  # what an earlier process said is not true of this one
            return build()

        watch = Watch(self._note, self._on_remark, lambda: self._is_ready(name))
        return Child(name, build_afresh, watch, drain_seconds=drain_seconds)

    def _build_ingestion(self) -> Command:
        self._starts += 1
        is_first = self._starts == 1
        own = {
            "TOCSIN_INGESTION__HOST": HOST,
            "TOCSIN_INGESTION__PORT": str(prefer_port(INGESTION_PORT) if is_first else self._ingestion_port),
            "TOCSIN_INGESTION__DRAIN_SECONDS": str(INGESTION_DRAIN_SECONDS),
        }
        return self._build("ingest", own, prefer_port(HEALTH_PORT) if is_first else ANY)

    def _build(self, role: str, own: Mapping[str, str], health_port: int) -> Command:
        health = {"TOCSIN_HEALTH__HOST": HOST, "TOCSIN_HEALTH__PORT": str(health_port)}
        return Command(ENTRY_POINT, (role, "--config", str(self._config)), {**self._environment, **own, **health})

    def _note(self, name: str, line: bytes) -> None:
        if b'"health_port"' in line and name not in self._listening:
            self._listening[name] = msgspec.json.decode(line, type=Listening)
            if name == INGESTION:
                self._ingestion_port = self._listening[name].port
        self._on_line(name, line)

    async def read_metrics(self, name: str) -> str | None:
        """Return a process's metrics page, None where it does not answer."""
        answer = await self._ask(name, "/metrics")
        return None if answer is None or answer.status != OK else await answer.text()

    async def _is_ready(self, name: str) -> bool:
        answer = await self._ask(name, "/readyz")
        return answer is not None and answer.status == OK

    async def _ask(self, name: str, path: str) -> Response | None:
        assert self._client is not None, "use `async with`"  # noqa: S101 - a programming error
        if name not in self._listening:
            return None
        try:
            request = self._client.get(f"http://{HOST}:{self._listening[name].health_port}{path}").build()
            return await request.send()
        except PyreqwestError:
            return None


def write_service_config(config: Mapping[str, Any], root: Path) -> None:
    """Write config.yaml below `root`."""
    path = root / "config" / CONFIG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(config), allow_unicode=True), encoding="utf-8")


def build_kafka_settings(config: Mapping[str, Any], environment: Mapping[str, str]) -> KafkaSettings:
    """Return the services' Kafka settings for this process's own clients: the same file, the same credentials."""
    names = {"username": "TOCSIN_KAFKA__USERNAME", "password": "TOCSIN_KAFKA__PASSWORD"}
    credentials = {key: environment[name] for key, name in names.items() if name in environment}
    return KafkaSettings.model_validate({**config["kafka"], **credentials})


async def await_ready(child: Child) -> None:
    """Return when the child is ready. Raise ServiceFailed with its last words if it crashes or takes too long."""
    ready = asyncio.create_task(child.wait_ready())
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    try:
        while not (await asyncio.wait({ready}, timeout=0.2))[0]:
            if child.crashes >= CRASHES_ALLOWED or asyncio.get_running_loop().time() > deadline:
                raise ServiceFailed(f"{child.name} does not start:\n{child.last_words or '(it said nothing)'}")
    finally:
        ready.cancel()
