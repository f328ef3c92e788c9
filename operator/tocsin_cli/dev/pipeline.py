"""A pipeline that runs: one ingestion process, a fleet of consumers, and the scaling loop over them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from tocsin_cli.dev.fleet import ConsumerFleet
from tocsin_cli.dev.ledger import Count
from tocsin_cli.dev.picture import Fleet, Picture
from tocsin_cli.dev.scaler import FleetScaler, WallClock
from tocsin_cli.dev.services import Services, await_ready
from tocsin_cli.poster import PATH
from tocsin_cli.processes.child import Child
from tocsin_core.admin import KafkaAdmin
from tocsin_operator.model import Pipeline
from tocsin_operator.scaling.loop import ScalingLoop


class RunningPipeline:
    """The processes of one resource. `start`, then `stop_accepting`, then `stop`."""

    def __init__(
        self,
        resource: Pipeline,
        services: Services,
        admin: KafkaAdmin,
        *,
        elapsed_seconds: Callable[[], float],
        on_remark: Callable[[str], None],
    ) -> None:
        self._resource = resource
        self._services = services
        self._ingestion: Child | None = None
        self._scaling: asyncio.Task[None] | None = None
        self.fleet = ConsumerFleet(services.start_consumer)
        self.scaler = FleetScaler(
            resource,
            self.fleet,
            admin,
            elapsed_seconds=elapsed_seconds,
            read_page=services.read_metrics,
            on_remark=on_remark,
        )

    @property
    def url(self) -> str:
        """Return where to post, once the pipeline has started."""
        return self._services.url

    async def start(self) -> None:
        """Start everything and return when it is ready. Raise ServiceFailed with a process's own words."""
        self._ingestion = self._services.start_ingestion()
        self.fleet.scale_to(self._first_replicas())
        await asyncio.gather(await_ready(self._ingestion), *(await_ready(each) for each in self.fleet.children))
        loop = ScalingLoop(observer=self.scaler, actor=self.scaler, publisher=self.scaler, clock=WallClock())
        self._scaling = asyncio.create_task(loop.run())

    async def stop_accepting(self) -> None:
        """Stop the ingestion process; what it accepted stays in Kafka."""
        if self._ingestion is not None:
            await self._ingestion.stop()

    async def stop(self) -> None:
        """Stop scaling, then every process, draining. Safe to call twice."""
        self.scaler.is_active = False
        if self._scaling is not None:
            self._scaling.cancel()
            await asyncio.gather(self._scaling, return_exceptions=True)
        await asyncio.gather(self.stop_accepting(), self.fleet.stop())

    def take_picture(self, *, phase: str, seconds: float, count: Count, refused: int) -> Picture:
        """Return what there is to see now."""
        lowest, highest = self.scaler.bounds
        return Picture(
            phase=phase,
            seconds=seconds,
            count=count,
            refused=refused,
            backlog=self.scaler.backlog,
            fleet=Fleet(self.fleet.ready, self.fleet.running, self.fleet.wanted, lowest, highest),
            decision=self.scaler.decision,
            example=build_example(self.url),
        )

    def _first_replicas(self) -> int:
        return self.scaler.bounds[0]


def build_example(url: str) -> str:
    """Return a line to try in a shell."""
    body = msgspec.json.encode({"fromID": 1, "toID": 2, "message": "hi"}).decode()
    return f"curl -d '{body}' -H 'content-type: application/json' {url}{PATH}"
