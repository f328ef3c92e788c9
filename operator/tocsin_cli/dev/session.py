"""One run of a pipeline on this machine, from nothing to the tally.

    backend ─► topics ─► ingestion, consumers, scaling ─► clients ─► settle ─► come in ─► drain ─► tally

Everything started on the way is on one exit stack, so that an error or a Ctrl-C at any step ends what was begun.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from tocsin_cli.dev.acceptances import Acceptances
from tocsin_cli.dev.adapt import adapt_pipeline, build_environment, build_files, build_own_key, write_files
from tocsin_cli.dev.backend import Backend, start_backend
from tocsin_cli.dev.clients import Clients
from tocsin_cli.dev.ledger import Ledger
from tocsin_cli.dev.picture import Picture
from tocsin_cli.dev.pipeline import RunningPipeline
from tocsin_cli.dev.plan import Plan
from tocsin_cli.dev.receipts import ReceiptReader
from tocsin_cli.dev.screen import Screen
from tocsin_cli.dev.services import Services, build_kafka_settings, write_service_config
from tocsin_cli.dev.settle import DEFERRED_STALL_SECONDS, HURRY_SECONDS, STALL_SECONDS, Patience, settle, wait_until
from tocsin_cli.dev.tally import KafkaFacts, Tally, build_tally
from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import TocsinError
from tocsin_operator.children.config import build_service_config
from tocsin_operator.topics import apply_topics

CLIENT_ID = "tocsin-dev"
SHOW_SECONDS = 1.0


class Session:
    """Everything one run knows. Make one, `run` it once."""

    def __init__(self, plan: Plan, screen: Screen, stop: asyncio.Event) -> None:
        self._plan = plan
        self._screen = screen
        self._stop = stop
        self._started = time.monotonic()
        self._phase = "starting"
        self._acceptances: Acceptances | None = None
        self._log: BinaryIO | None = None
        channels = plan.manifest.pipeline.spec.consumer.channels
        self._ledger = Ledger([channel.name for channel in channels])
        log_channels = {channel.name for channel in channels if channel.type == "Log"}
        self._receipts = ReceiptReader(self._ledger, log_channels=log_channels)
        self.clients = Clients(plan, self._ledger, on_remark=screen.remark)

    @property
    def elapsed_seconds(self) -> float:
        """Return the time since the session was made."""
        return time.monotonic() - self._started

    async def run(self) -> Tally:
        """Run the plan and return what it came to. Raise TocsinError if the pipeline cannot be started."""
        async with AsyncExitStack() as stack:
            if self._plan.log is not None:
                self._log = stack.enter_context(self._plan.log.open("ab"))
            backend = await start_backend(self._plan, self._screen, stack)
            pipeline = await self._start_pipeline(backend, stack)
            showing = asyncio.create_task(self._keep_showing(pipeline))
            try:
                await self._drive(pipeline)
                return await self._finish(pipeline, backend.kafka)
            finally:
                showing.cancel()
                self._screen.close()

    async def _start_pipeline(self, backend: Backend, stack: AsyncExitStack) -> RunningPipeline:
        resource = adapt_pipeline(
            self._plan.manifest.pipeline,
            brokers=backend.brokers,
            is_embedded=backend.kafka.is_embedded,
            redis_url=backend.redis_url,
        )
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tocsin-dev-")))
        environment = build_environment(self._plan.manifest, resource)
        key, key_files = build_own_key(resource)
        write_files(root, build_files(self._plan.manifest, resource) | key_files)
        config = build_service_config(resource, root=str(root))
        write_service_config(config, root)
        kafka = build_kafka_settings(config, environment)
        admin = KafkaAdmin(kafka, client_id=CLIENT_ID)
        stack.push_async_callback(admin.close)
        await apply_topics(admin, resource)
        if self._plan.receiver is None:
            self._acceptances = await stack.enter_async_context(Acceptances(kafka, self._ledger))
        services = await stack.enter_async_context(
            Services(root, environment, on_line=self._on_line, on_remark=self._screen.remark)
        )
        pipeline = RunningPipeline(
            resource, services, admin, elapsed_seconds=lambda: self.elapsed_seconds, on_remark=self._screen.remark
        )
        stack.push_async_callback(pipeline.stop)
        await pipeline.start()
        self._screen.step(f"the pipeline is ready on {pipeline.url}, {self.elapsed_seconds:.1f} s after the start")
        if key:
            self.clients.token = key
            self._screen.step(f"its API key for this session: {key}")
        if resource.has_streams:
            self._screen.step(f"to see what a person sees: tocsin listen --user ID --url {pipeline.url}")
        return pipeline

    async def _drive(self, pipeline: RunningPipeline) -> None:
        """Let the clients post until they are done, the time is over, or somebody wants to stop."""
        self._phase = "running"
        enough = asyncio.Event()
        clients = asyncio.create_task(self.clients.run(pipeline.url, enough))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({clients, stopping}, timeout=self._plan.seconds, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        enough.set()
        await clients

    async def _finish(self, pipeline: RunningPipeline, kafka: KafkaFacts) -> Tally:
        self._phase = "delivering the rest"
        if not self._stop.is_set() and self._plan.come_in_seconds:
            await self._settle()
            self._phase = "waiting for consumers to come in"
            low, seconds = pipeline.scaler.bounds[0], self._plan.come_in_seconds
            await wait_until(lambda: pipeline.fleet.running <= low, at_most_seconds=seconds, stop=self._stop)
            self._phase = "draining"
        await pipeline.stop_accepting()
        await self._settle()
        replicas_end = pipeline.fleet.running
        await pipeline.stop()
        self._screen.show(self._take_picture(pipeline))
        return build_tally(
            (await self._count()).count(),
            refused=self.clients.refused,
            replicas_max=pipeline.fleet.most,
            replicas_end=replicas_end,
            moves=pipeline.scaler.moves,
            kafka=kafka,
            seconds=self.elapsed_seconds,
        )

    async def _settle(self) -> None:
        await settle(self._count_open, self._patience, lambda: self._ledger.moves)

    async def _count_open(self) -> int:
        await self._catch_up()
        return self._ledger.open

    def _patience(self) -> Patience:
        return Patience(
            stall_seconds=DEFERRED_STALL_SECONDS if self._ledger.has_deferred else STALL_SECONDS,
            at_most_seconds=HURRY_SECONDS if self._stop.is_set() else None,
        )

    async def _count(self) -> Ledger:
        """Return the ledger to believe: the receiver's, where there is one."""
        receiver = self._plan.receiver
        if receiver is None:
            return self._ledger
        return self._ledger.recount(await receiver.count(), receiver.channel)

    async def _catch_up(self) -> None:
        if self._acceptances is not None:
            await self._acceptances.catch_up()

    async def _keep_showing(self, pipeline: RunningPipeline) -> None:
        while True:
            with suppress(TocsinError):  # the scaling loop says the same, and shows it
                await self._catch_up()
            self._screen.show(self._take_picture(pipeline))
            await asyncio.sleep(SHOW_SECONDS)

    def _take_picture(self, pipeline: RunningPipeline) -> Picture:
        return pipeline.take_picture(
            phase=self._phase, seconds=self.elapsed_seconds, count=self._ledger.count(), refused=self.clients.refused
        )

    def _on_line(self, name: str, line: bytes) -> None:
        if self._log is not None:
            self._log.write(name.encode() + b" " + line)
        reading = self._receipts.read(line)
        if reading.delivered is not None:
            self._screen.deliver(reading.delivered, line)
        if reading.remark:
            self._screen.remark(f"{name}: {reading.remark}")
