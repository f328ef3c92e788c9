"""The operator's scaling loop with processes in the place of Deployments.

The loop, the decision and the offsets are the cluster's own; only these hands differ. What the loop would write into
status is kept for the screen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from tocsin_cli.dev.fleet import ConsumerFleet
from tocsin_cli.dev.picture import Backlog
from tocsin_cli.dev.tally import Move
from tocsin_cli.processes.child import State
from tocsin_core.admin import KafkaAdmin
from tocsin_operator.model import Pipeline
from tocsin_operator.replicas import OWNER_MODES
from tocsin_operator.scaling.config import build_scaling_config
from tocsin_operator.scaling.counters import parse_consumer
from tocsin_operator.scaling.model import ConsumerCounters, Decision, Replicas
from tocsin_operator.scaling.ports import Answer, Report, Seen, Target

CLUSTER = "dev"


class WallClock:
    """Time as it passes."""

    def now_seconds(self) -> float:
        """Return seconds since the epoch, that never go back: the monotonic clock moved to the wall's start."""
        return _EPOCH_OFFSET + time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        await asyncio.sleep(seconds)


_EPOCH_OFFSET = time.time() - time.monotonic()


class FleetScaler:
    """Observer, actor and publisher for one fleet of processes."""

    def __init__(
        self,
        pipeline: Pipeline,
        fleet: ConsumerFleet,
        admin: KafkaAdmin,
        *,
        elapsed_seconds: Callable[[], float],
        read_page: Callable[[str], Awaitable[str | None]],
        on_remark: Callable[[str], None],
    ) -> None:
        self.backlog = Backlog()
        self.moves: list[Move] = []
        self.is_active = True
        self._decision: Decision | None = None
        self._trouble = ""
        self._fleet = fleet
        self._admin = admin
        self._read_page = read_page
        self._elapsed_seconds = elapsed_seconds
        self._on_remark = on_remark
        self._target = Target(
            key=pipeline.key,
            uid=pipeline.key,
            cluster=CLUSTER,
            group=pipeline.consumer_group,
            topic=pipeline.spec.kafka.topic.name,
            config=build_scaling_config(pipeline.spec),
        )

    @property
    def decision(self) -> str:
        """Return the last decision and why, in words."""
        if self._trouble:
            return self._trouble
        return f"{self._decision.reason}: {self._decision.message}" if self._decision else "not yet"

    @property
    def bounds(self) -> tuple[int, int]:
        """Return the fewest and the most consumers there may be."""
        config = self._target.config
        if config.mode in OWNER_MODES:
            return config.manual_replicas, config.manual_replicas
        return config.min_replicas, config.max_replicas

    def list_targets(self) -> Iterable[Target]:
        """Return the one pipeline, while consumers may still be started or stopped."""
        return (self._target,) if self.is_active else ()

    async def observe_groups(self, cluster: str, targets: Sequence[Target]) -> Mapping[str, Answer]:
        """Return the offsets of the pipeline's group."""
        del cluster
        return {each.key: await self._admin.observe_group(each.group, each.topic) for each in targets}

    async def observe_replicas(self, target: Target) -> Seen | None:
        """Return how many processes were asked for and how many are ready."""
        del target
        return Seen(Replicas(spec=self._fleet.wanted, ready=self._fleet.ready))

    async def observe_consumers(self, target: Target) -> tuple[ConsumerCounters, ...] | None:
        """Return the counters of the processes that are ready."""
        del target
        names = [child.name for child in self._fleet.children if child.state is State.READY]
        pages = await asyncio.gather(*(self._read_page(name) for name in names))
        found = [parse_consumer(name, page) for name, page in zip(names, pages, strict=True) if page is not None]
        return tuple(each for each in found if each is not None)

    async def apply_scale(self, target: Target, replicas: int, version: str) -> None:
        """Start or drain processes."""
        del target, version
        self._fleet.scale_to(replicas)

    async def publish(self, report: Report) -> None:
        """Keep what the screen and the tally show."""
        failure = report.kafka_failure or report.failure
        self._trouble = f"Kafka or scaling in trouble: {failure}" if failure else ""
        if report.decision is None:
            return
        self._decision = report.decision
        inputs = report.decision.inputs
        self.backlog = Backlog(inputs.total_lag, inputs.lag_seconds)
        if report.has_acted:
            self._note_move(report.decision)

    def _note_move(self, decision: Decision) -> None:
        move = Move(
            seconds=round(self._elapsed_seconds(), 1),
            replicas_before=decision.inputs.replicas,
            replicas_after=decision.replicas,
            reason=str(decision.reason),
            message=decision.message,
        )
        self.moves.append(move)
        self._on_remark(f"consumers {move.replicas_before} → {move.replicas_after}: {move.message}")
