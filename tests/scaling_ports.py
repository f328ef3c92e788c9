"""The scaling loop's ports on a real Kafka, with a Deployment of which only the wished number is real."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tocsin_core.admin import KafkaAdmin
from tocsin_operator.scaling.model import ConsumerCounters, Replicas
from tocsin_operator.scaling.ports import Answer, Report, Seen, Target


@dataclass
class Ports:
    """One pipeline, and reports that can be awaited; `read_counters` asks its one pod."""

    admin: KafkaAdmin
    target: Target
    read_counters: Callable[[], Awaitable[ConsumerCounters | None]] | None = None
    wanted: int = 1
    reports: asyncio.Queue[Report] = field(default_factory=asyncio.Queue)

    def list_targets(self) -> Iterable[Target]:
        return (self.target,)

    async def observe_groups(self, cluster: str, targets: Sequence[Target]) -> Mapping[str, Answer]:
        del cluster
        answers = await self.admin.observe_groups([(each.group, each.topic) for each in targets])
        return {each.key: answers[each.group, each.topic] for each in targets}

    async def observe_replicas(self, target: Target) -> Seen | None:
        del target
        return Seen(Replicas(spec=1, ready=1))

    async def observe_consumers(self, target: Target) -> tuple[ConsumerCounters, ...] | None:
        del target
        if self.read_counters is None:
            return None
        counters = await self.read_counters()
        return () if counters is None else (counters,)

    async def apply_scale(self, target: Target, replicas: int, version: str) -> None:
        del target, version
        self.wanted = replicas

    async def publish(self, report: Report) -> None:
        await self.reports.put(report)
