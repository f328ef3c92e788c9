"""The ingestion process: what it is made of, and how it begins and ends.

    SIGTERM ─► not ready ─► still answering while the endpoints forget us and streams are closed one by one ─►
    listener closed, every connection may ask
    once more ─► what still waits for Kafka at the deadline is answered by the closing producer (503 or 504) ─► exit

One process per pod: replicas scale it, and one librdkafka queue, one set of metrics and one signal handler stay true.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, NamedTuple

import structlog

from tocsin_core import lifecycle
from tocsin_core.admin import KafkaAdmin
from tocsin_core.directory.build import build_directory
from tocsin_core.health import HealthServer, health_app
from tocsin_core.logging import configure_logging
from tocsin_core.producer import RecordProducer
from tocsin_core.settings import Settings
from tocsin_ingestion.accept import Acceptor, Target
from tocsin_ingestion.admission import Limits
from tocsin_ingestion.api import build_api
from tocsin_ingestion.auth.building import build_gate
from tocsin_ingestion.draft import Rules
from tocsin_ingestion.exchange import Parts
from tocsin_ingestion.protocol import bind_protocol
from tocsin_ingestion.readiness import Readiness
from tocsin_ingestion.report import Reporter
from tocsin_ingestion.stream import PATH as STREAM_PATH
from tocsin_ingestion.stream import build_streams
from tocsin_ingestion.web import App, DrainingServer, bind, build_config

SERVICE = "tocsin-ingestion"
HEALTH_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
OBSERVE_SECONDS = 5.0
OBSERVE_TIMEOUT_SECONDS = 4.0
GATE_SECONDS = 1.0
"""Between looks at whether keys have changed."""
STARTING_OBSERVE_SECONDS = 0.5
AUTH_ADVICE = "set ingestion.auth.mode, or let a NetworkPolicy or a gateway decide who reaches the API"
ANNOUNCE_SECONDS = 5.0
"""How long a pod that is going away still takes connections: until every kube-proxy has heard of it."""

_log = structlog.get_logger(__name__)


class Drain(NamedTuple):
    """How the seconds of `ingestion.drain_seconds` are spent, in this order."""

    announce_seconds: float
    answer_seconds: float
    producer_seconds: float


def plan_drain(drain_seconds: float, *, has_streams: bool = False) -> Drain:
    """Return the drain for a budget: a quarter (at most 5 s) to be forgotten, a tenth for the producer. Pure.

    With streams it is half of the budget: their clients come back to the other pods spread over that time.
    """
    announce = drain_seconds / 2 if has_streams else min(ANNOUNCE_SECONDS, drain_seconds / 4)
    producer = drain_seconds / 10
    return Drain(announce, drain_seconds - announce - producer, producer)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return 0, or 1 if the server failed or records were left undelivered.

    Raise SettingsError if an address is taken, KafkaFailure if the Kafka settings cannot work.
    """
    configure_logging(settings.log, service=SERVICE)
    return lifecycle.run(lambda stop: serve(settings, stop))


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Serve until `stop` is set, then drain; return the exit code."""
    if settings.ingestion.auth.mode == "None":
        _log.warning("everybody who reaches this port may post", auth_mode="None", advice=AUTH_ADVICE)
        if settings.has_streams:
            _log.warning("everybody who reaches this port may listen as any user", auth_mode="None", advice=AUTH_ADVICE)
    with bind(settings.ingestion.host, settings.ingestion.port) as listener:
        return await Ingestion(settings, listener).run(stop)


class Ingestion:
    """The parts of the process, and the order in which they start and stop."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        topic = settings.kafka.topic
        self._listener = listener
        self._plan = plan_drain(settings.ingestion.drain_seconds, has_streams=settings.has_streams)
        self._producer = RecordProducer(settings.kafka, client_id=SERVICE)
        self._admin = KafkaAdmin(settings.kafka, client_id=SERVICE, timeout_seconds=OBSERVE_TIMEOUT_SECONDS)
        directory = self._directory = build_directory(settings.users)
        self._reporter = Reporter(topic=topic)
        self._acceptor = Acceptor(directory, self._producer, _build_target(settings), limits=_build_limits(settings))
        self._readiness = Readiness(
            topic,
            lambda: self._admin.describe_topic(topic),
            directory.check,
            users_patience_seconds=directory.patience_seconds,
        )
        self._gate = build_gate(settings.ingestion.auth)
        checks = {
            "check_ready": self._check_ready,
            "check_alive": self._check_alive,
            "remark": self._readiness.remark,
        }
        self._health = HealthServer(settings.health, **checks)
        rules = Rules(tuple(channel.name for channel in settings.consumer.channels))
        health = health_app(**checks)
        self._streams = build_streams(settings, directory, self._gate)
        parts = Parts(self._acceptor, rules, self._reporter, self._gate)
        app = dispatch(build_api(*parts), health, self._streams)
        protocol = bind_protocol(parts)
        self._server = DrainingServer(
            build_config(app, protocol, graceful_seconds=sum(self._plan[1:]), has_streams=settings.has_streams)
        )

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until `stop` is set, then drain; return the exit code."""
        await self._producer.start()
        await self._health.start()
        if self._streams is not None:
            self._streams.start()
        lifecycle.rest_garbage_collection()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            guarding = tasks.create_task(self._watch_gate())
            serving = tasks.create_task(self._server.serve(sockets=[self._listener]))
            stopping = tasks.create_task(stop.wait())
            self._greet()
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            undelivered = await self._drain(serving)
            watching.cancel()
            guarding.cancel()
            stopping.cancel()
        self._reporter.flush(is_final=True)
        await self._admin.close()
        if self._streams is not None:
            await self._streams.close()
        await self._directory.close()
        await self._health.stop()
        return 1 if undelivered or not stop.is_set() else 0

    def _greet(self) -> None:
        host, port = self._listener.getsockname()[:2]
        _log.info("ingestion listening", host=host, port=port, health_port=self._health.port)

    async def _drain(self, serving: asyncio.Task[None]) -> int:
        _log.info("draining", **self._plan._asdict(), in_flight=self._producer.in_flight)
        self._readiness.leave()
        announcing = asyncio.wait((serving,), timeout=self._plan.announce_seconds)
        if self._streams is None:
            await announcing
        else:
            await asyncio.gather(announcing, self._streams.drain(self._plan.announce_seconds))
        self._server.should_exit = True
        await asyncio.wait((serving,), timeout=self._plan.answer_seconds)
        self._acceptor.close()
        undelivered = await self._producer.close(self._plan.producer_seconds)  # answers whoever still waits
        await asyncio.wait((serving,))
        (_log.error if undelivered else _log.info)("drained", undelivered=undelivered)
        return undelivered

    async def _watch(self) -> None:
        while True:
            try:
                await self._readiness.observe()
                self._reporter.flush()
            except Exception:  # noqa: BLE001 - the top of a loop whose end would turn the pod unready for ever
                _log.exception("watching failed; trying again")
            await asyncio.sleep(STARTING_OBSERVE_SECONDS if self._readiness.check() else OBSERVE_SECONDS)

    async def _watch_gate(self) -> None:
        while self._gate is not None:
            try:
                await self._gate.checker.refresh()
                if self._streams is not None:
                    self._streams.close_revoked()
            except Exception:  # noqa: BLE001 - the top of a loop whose end would keep revoked keys good for ever
                _log.exception("looking at the keys failed; trying again")
            await asyncio.sleep(GATE_SECONDS)

    def _check_ready(self) -> str:
        """Return why no request should come here: one without any key would turn everybody away."""
        return self._readiness.check() or ("" if self._gate is None else self._gate.checker.check())

    def _check_alive(self) -> str:
        return "" if self._producer.is_healthy else "the producer cannot acknowledge anything any more"


def dispatch(api: App, health: App, streams: App | None) -> App:
    """Return the application that answers health, metrics and streams beside the API, passing its router by."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == STREAM_PATH and streams is not None:
            await streams(scope, receive, send)
        else:
            await (health if scope["path"] in HEALTH_PATHS else api)(scope, receive, send)

    return app


def _build_target(settings: Settings) -> Target:
    return Target(
        topic=settings.kafka.topic,
        tenant=f"{settings.pipeline.namespace}/{settings.pipeline.name}",
        delivery_timeout_seconds=settings.kafka.delivery_timeout_seconds,
    )


def _build_limits(settings: Settings) -> Limits:
    ingestion = settings.ingestion
    return Limits(ingestion.max_in_flight, ingestion.max_in_flight_bytes, ingestion.max_bodies_bytes)
