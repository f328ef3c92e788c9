"""The consumer service: builds its parts, runs until it is told to stop, hands its partitions over and leaves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from tocsin_consumer import metrics
from tocsin_consumer.channels.build import build_channels
from tocsin_consumer.claims import Claims, NoClaims
from tocsin_consumer.dead_letters import DeadLetters
from tocsin_consumer.delivery import Deliverer, Policy
from tocsin_consumer.engine import Bounds, Engine
from tocsin_consumer.gate import Gate
from tocsin_consumer.order import Order, Relaxed, Strict
from tocsin_consumer.pace import Pace
from tocsin_consumer.producer import build_producer_settings
from tocsin_consumer.redis_claims import RedisClaims
from tocsin_consumer.retries import Retries
from tocsin_consumer.retry_topics import RetryTopics
from tocsin_consumer.slots import Slots
from tocsin_core import lifecycle
from tocsin_core.admin import KafkaAdmin
from tocsin_core.consumer import MIN_SHARE_RECORDS, RecordConsumer
from tocsin_core.consumer_config import BATCH_RECORDS
from tocsin_core.directory.build import build_directory
from tocsin_core.errors import KafkaFailure, NotAuthenticated, NotAuthorized, TopicMissing
from tocsin_core.health import HealthServer
from tocsin_core.logging import configure_logging, get_logger
from tocsin_core.producer import RecordProducer
from tocsin_core.reader import RangeReader
from tocsin_core.settings import KafkaSettings, Settings

ACCOUNT_INTERVAL_SECONDS = 0.5
PRODUCER_CLOSE_SECONDS = 5.0
SPARE_CONNECTIONS = 8
HELD_PER_SLOT = 50
MIN_HELD_RECORDS = 1_000
MAX_HELD_RECORDS = 50_000

_log = get_logger(__name__)


def run(settings: Settings) -> int:
    """Run the consumer service until SIGTERM or SIGINT. Return 0 after an orderly end, 1 if it ended by an error.

    Raise SettingsError or KafkaFailure if it cannot start at all.
    """
    configure_logging(settings.log, service="consumer")
    return lifecycle.run(lambda stop: serve(settings, stop, on_started=lifecycle.rest_garbage_collection))


async def serve(settings: Settings, stop: asyncio.Event, *, on_started: Callable[[], None] = lambda: None) -> int:
    """Consume until `stop` is set; drain, commit and close. Return the exit code."""
    worker = Worker(settings)
    async with contextlib.AsyncExitStack() as closing:
        await worker.start(closing)
        on_started()
        _log.info("consumer started", **worker.describe())
        await worker.wait(stop)
        return await worker.stop()


class Worker:
    """The parts of one consumer process, and the order in which they come and go."""

    def __init__(self, settings: Settings) -> None:
        """Build all parts; nothing connects yet. Raise SettingsError if a file they need cannot be used."""
        self._settings = settings
        client_id = f"tocsin-{settings.pipeline.name}-consumer-{socket.gethostname()}"
        self._channels = build_channels(settings)
        self._claims = build_claims(settings)
        self._users = build_directory(settings.users)
        self._producer = RecordProducer(build_producer_settings(settings.kafka), client_id=client_id)
        self._retry_topics = RetryTopics(self._producer, settings.retry_tiers)
        self._order = build_order(settings)
        names = list(self._channels)
        self._gate = Gate(names)
        bounds = build_bounds(settings)
        self._reader = RangeReader(settings.kafka, client_id=f"{client_id}-catch-up")
        self._slots = Slots(
            settings.consumer.concurrency,
            settings.consumer.channel_limits,
            clock=time.monotonic,
        )
        metrics.BUSY_SLOT_SECONDS.set_function(lambda: self._slots.busy_seconds)
        self._engine = Engine(
            self._build_deliverer(),
            channels=names,
            slots=self._slots,
            pace=Pace(
                self._slots.guaranteed,
                budget_seconds=settings.consumer.drain_seconds,
                max_gap=bounds.max_held_records,
            ),
            max_attempts=settings.delivery.max_attempts,
            bounds=bounds,
            reader=self._reader,
            gate=self._gate,
            tiers=settings.retry_tiers,
        )
        self._gate.on_opened = self._engine.pump
        self._consumer = RecordConsumer(
            settings.kafka,
            self._engine,
            client_id=client_id,
            drain_seconds=settings.consumer.drain_seconds,
            max_held_records=bounds.max_held_records,
            max_held_bytes=bounds.max_held_bytes,
            on_refused=self._retry_topics.refuse,
        )
        self._retry_topics.on_change = self._consumer.read_also
        self.health = HealthServer(
            settings.health,
            check_ready=self._check_ready,
            check_alive=self._check_alive,
            remark=lambda: self._users.trouble,
        )

    def describe(self) -> dict[str, object]:
        """Return what the first log line says."""
        return {
            "topic": self._settings.kafka.topic,
            "group": self._settings.kafka.consumer_group,
            "channels": list(self._channels),
            "concurrency": self._settings.consumer.concurrency,
            "ordering": self._settings.delivery.ordering,
            "retry_topics": [tier.topic for tier in self._settings.retry_tiers],
            "dead_letter_topic": self._settings.dead_letter_topic,
            "has_claims": self._settings.redis is not None,
            "health_port": self.health.port,
        }

    async def start(self, closing: contextlib.AsyncExitStack) -> None:
        """Start all parts, and tell `closing` how they are closed: in the opposite order."""
        metrics.CONCURRENCY.set(self._settings.consumer.concurrency)
        metrics.IN_FLIGHT.set_function(lambda: self._slots.in_use)
        metrics.HELD_RECORDS.set_function(lambda: self._engine.held_records)
        await self.health.start()
        closing.push_async_callback(self.health.stop)
        closing.push_async_callback(self._claims.close)
        closing.push_async_callback(self._order.close)
        closing.push_async_callback(self._users.close)
        await self._claims.start()
        for channel in self._channels.values():
            closing.push_async_callback(channel.close)
        await self._producer.start()
        closing.push_async_callback(self._producer.close, PRODUCER_CLOSE_SECONDS)
        closing.push_async_callback(self._reader.close)
        await self._retry_topics.start()
        closing.push_async_callback(self._retry_topics.close)
        closing.callback(self._gate.close)
        closing.push_async_callback(self._engine.close)
        accounting = asyncio.create_task(self._account(), name="account-held-time")
        closing.callback(accounting.cancel)
        await self._consumer.start()

    async def wait(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set or the poll thread has ended."""
        if self._consumer.ended is None:
            raise RuntimeError("the worker was not started")
        asked = asyncio.create_task(stop.wait())
        either: list[asyncio.Future[Any]] = [asked, self._consumer.ended]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()

    async def stop(self) -> int:
        """Hand the partitions over and leave the group; return the exit code."""
        try:
            await self._consumer.stop()
        except KafkaFailure as error:
            _log.error("consumer ended by an error", reason=str(error), advice=error.advice)
            return 1
        except Exception:  # noqa: BLE001 - the top of the service: whatever it was, say it and close the rest
            _log.exception("consumer ended by a defect")
            return 1
        _log.info("consumer stopped")
        return 0

    def _build_deliverer(self) -> Deliverer:
        settings = self._settings
        return Deliverer(
            channels=self._channels,
            users=self._users,
            claims=self._claims,
            dead_letters=DeadLetters(
                self._producer, topic=settings.dead_letter_topic, group=settings.kafka.consumer_group
            ),
            retries=Retries(self._retry_topics, self._order),
            gate=self._gate,
            policy=Policy(max_attempts=settings.delivery.max_attempts, ttl_seconds=settings.delivery.ttl_seconds),
        )

    async def _account(self) -> None:
        while True:
            await asyncio.sleep(ACCOUNT_INTERVAL_SECONDS)
            is_stalled = bool(self._users.trouble) and self._engine.held_records > 0
            self._gate.account(self._engine.is_waiting, is_stalled=is_stalled)

    def _check_ready(self) -> str:
        trouble = self._consumer.trouble
        return f"{trouble}: {trouble.advice}" if trouble else self._claims.trouble

    def _check_alive(self) -> str:
        if not self._consumer.is_polling:
            return f"the poll thread has not come round for {self._consumer.seconds_since_poll:.0f} s"
        return "" if self._producer.is_healthy else "the producer for dead letters is broken"


def build_bounds(settings: Settings) -> Bounds:
    """Return how much of a backlog is held in memory: enough to keep every slot busy, and no more."""
    wanted = settings.consumer.concurrency * HELD_PER_SLOT
    return Bounds(
        max_held_records=min(max(wanted, MIN_HELD_RECORDS), MAX_HELD_RECORDS),
        max_held_bytes=2 * settings.kafka.fetch_max_bytes,
        batch_records=BATCH_RECORDS,
        batch_bytes=settings.kafka.fetch_max_bytes,
        min_share_records=MIN_SHARE_RECORDS,
        min_share_bytes=settings.kafka.message_max_bytes,
    )


def build_claims(settings: Settings) -> Claims:
    """Return the claims in the pipeline's Redis, or none where it has no Redis."""
    if settings.redis is None:
        return NoClaims()
    return RedisClaims(
        settings.redis,
        pipeline=settings.pipeline_key,
        keep_seconds=settings.delivery.ttl_seconds,
        is_new=lambda: observe_newness(settings.kafka),
    )


def build_order(settings: Settings) -> Order:
    """Return the order that the pipeline asks for: kept in its Redis, or none."""
    if settings.redis is None or settings.delivery.ordering == "Relaxed":
        return Relaxed()
    max_connections = settings.consumer.concurrency + SPARE_CONNECTIONS
    return Strict(settings.redis, pipeline=settings.pipeline_key, max_connections=max_connections)


async def observe_newness(kafka: KafkaSettings) -> bool:
    """Return whether the pipeline's group has never committed an offset; False where we may not know.

    Raise KafkaFailure while Kafka does not say.
    """
    admin = KafkaAdmin(kafka, client_id=f"tocsin-consumer-{socket.gethostname()}")
    try:
        return all(each.committed is None for each in await admin.observe_group(kafka.consumer_group, kafka.topic))
    except TopicMissing:
        return True
    except (NotAuthenticated, NotAuthorized):
        return False
    finally:
        await admin.close()
