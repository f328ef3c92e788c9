from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec

from scaling_cases import Flow
from tocsin_core.errors import KafkaUnavailable, TocsinError, TopicMissing
from tocsin_operator.scaling.loop import ScalingLoop
from tocsin_operator.scaling.model import Config, ConsumerCounters, Reason, Replicas, State
from tocsin_operator.scaling.ports import Answer, Report, ScaleConflict, Seen, Target

CONFIG = Config(interval_seconds=5, capacity_per_second=100)


def target(
    key: str, *, cluster: str = "one", uid: str = "1", config: Config = CONFIG, restored: State | None = None
) -> Target:
    return Target(key, uid, cluster, f"group-{key}", f"topic-{key}", config, restored or State())


@dataclass
class World:
    """Everything the loop is plugged into: what it is told, and what it did."""

    targets: list[Target]
    now: float = 1_000_000.0
    flow: Flow = field(default_factory=Flow)
    replicas: dict[str, int] = field(default_factory=dict)
    failures: dict[str, TocsinError] = field(default_factory=dict)
    cluster_failures: dict[str, Exception] = field(default_factory=dict)
    conflicts: int = 0
    stalled: dict[str, asyncio.Event] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    written: list[tuple[str, int, str]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    reads: int = 0
    at_once: int = 0
    most_at_once: int = 0
    scale_failure: Exception | None = None
    publish_fails: bool = False
    answers_nothing: bool = False
    consumers: dict[str, tuple[ConsumerCounters, ...]] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for_reports(self, count: int) -> None:
        while len(self.reports) < count:
            self.news.clear()
            await self.news.wait()

    def now_seconds(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def list_targets(self) -> Iterable[Target]:
        return list(self.targets)

    async def observe_groups(self, cluster: str, targets: Sequence[Target]) -> Mapping[str, Answer]:
        self.asked.append((cluster, tuple(each.key for each in targets)))
        if cluster in self.stalled:
            await self.stalled[cluster].wait()
        if cluster in self.cluster_failures:
            raise self.cluster_failures[cluster]
        if self.answers_nothing:
            return {}
        look = self.flow.look(self.now - 1_000_000.0)
        return {each.key: self.failures.get(each.key, look.partitions) for each in targets}

    async def observe_replicas(self, target: Target) -> Seen | None:
        self.reads += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if target.key not in self.replicas:
            return None
        count = self.replicas[target.key]
        return Seen(Replicas(spec=count, ready=count), version=f"v{self.reads}")

    async def observe_consumers(self, target: Target) -> tuple[ConsumerCounters, ...] | None:
        return self.consumers.get(target.key)

    async def apply_scale(self, target: Target, replicas: int, version: str) -> None:
        if self.scale_failure:
            raise self.scale_failure
        if self.conflicts:
            self.conflicts -= 1
            raise ScaleConflict("somebody else wrote")
        self.replicas[target.key] = replicas
        self.written.append((target.key, replicas, version))

    async def publish(self, report: Report) -> None:
        self.reports.append(report)
        self.news.set()
        if self.publish_fails:
            raise RuntimeError("status not written")


def build(*targets: Target, replicas: int = 1, **changes: Any) -> tuple[World, ScalingLoop]:
    world = World(list(targets), replicas=dict.fromkeys((each.key for each in targets), replicas), **changes)
    return world, ScalingLoop(observer=world, actor=world, publisher=world, clock=world, workers=4)


BUSY = Flow(lag=50_000)


async def test_a_lagging_pipeline_is_scaled_at_the_version_it_was_decided_on() -> None:
    world, loop = build(target("a"), flow=BUSY)
    await loop.run_pass()
    assert world.written == [("a", 6, "v1")]


async def test_a_pipeline_is_looked_at_once_in_its_interval() -> None:
    world, loop = build(target("a"))
    for _ in range(10):
        await loop.run_pass()
        world.now += 1
    assert len(world.asked) == 2


async def test_pipelines_of_one_cluster_are_asked_about_at_once_and_in_order() -> None:
    world, loop = build(target("b"), target("c", cluster="two"), target("a"))
    await loop.run_pass()
    assert world.asked == [("one", ("a", "b")), ("two", ("c",))]


async def test_pipelines_fall_into_step_with_each_other() -> None:
    world, loop = build(target("a"))
    await loop.run_pass()
    world.now += 3
    world.targets.append(target("b"))
    world.replicas["b"] = 1
    await loop.run_pass()
    world.now += 2
    await loop.run_pass()
    assert world.asked[-1] == ("one", ("a", "b"))


async def test_workers_are_bounded() -> None:
    world, loop = build(*(target(f"p{number:03}") for number in range(100)))
    await loop.run_pass()
    assert len(world.reports) == 100
    assert world.most_at_once <= 4


async def test_a_cluster_that_does_not_answer_delays_nobody_else() -> None:
    world, loop = build(target("a"), target("b", cluster="two"), stalled={"one": asyncio.Event()})
    running = asyncio.create_task(loop.run_pass())
    await world.wait_for_reports(1)
    assert [report.target.key for report in world.reports] == ["b"]
    world.stalled["one"].set()
    await running
    assert {report.target.key for report in world.reports} == {"a", "b"}


async def test_a_cluster_is_not_asked_again_while_it_is_being_asked() -> None:
    world, loop = build(target("a"), stalled={"one": asyncio.Event()})
    first = asyncio.create_task(loop.run_pass())
    await asyncio.sleep(0)
    world.now += 60
    second = asyncio.create_task(loop.run_pass())
    await asyncio.sleep(0)
    assert len(world.asked) == 1
    world.stalled["one"].set()
    await asyncio.gather(first, second)


async def test_a_deleted_pipeline_is_forgotten() -> None:
    world, loop = build(target("a"), flow=BUSY)
    await loop.run_pass()
    world.targets.clear()
    world.now += 60
    await loop.run_pass()
    assert len(world.reports) == 1


async def test_a_pipeline_made_anew_under_the_same_name_remembers_nothing() -> None:
    world, loop = build(target("a"))
    for _ in range(5):
        await loop.run_pass()
        world.now += 5
    world.targets = [target("a", uid="2")]
    await loop.run_pass()
    assert world.reports[-1].state is not None
    assert len(world.reports[-1].state.history) == 1


async def test_what_an_earlier_process_remembered_is_used() -> None:
    world, loop = build(target("a", restored=State(last_scale_seconds=77.0)))
    await loop.run_pass()
    assert world.reports[-1].state is not None
    assert world.reports[-1].state.last_scale_seconds == 77.0


async def test_a_manual_pipeline_follows_its_owner_and_reports_its_lag() -> None:
    config = msgspec.structs.replace(CONFIG, mode="Manual", manual_replicas=3)
    world, loop = build(target("a", config=config), replicas=3, flow=BUSY)
    await loop.run_pass()
    decision = world.reports[-1].decision
    assert decision is not None
    assert (world.written, decision.reason, decision.inputs.total_lag) == ([], Reason.MANUAL, 50_000)


async def test_a_suspended_pipeline_loses_its_consumers() -> None:
    world, loop = build(target("a", config=msgspec.structs.replace(CONFIG, is_suspended=True)), flow=BUSY)
    await loop.run_pass()
    assert [(key, count) for key, count, _ in world.written] == [("a", 0)]


async def test_a_conflicting_write_is_decided_again_on_what_is_there_now() -> None:
    world, loop = build(target("a"), flow=BUSY, conflicts=1)
    await loop.run_pass()
    assert world.written == [("a", 6, "v2")]


async def test_a_write_that_always_conflicts_is_left_to_the_next_pass() -> None:
    world, loop = build(target("a"), flow=BUSY, conflicts=100)
    await loop.run_pass()
    assert (world.written, world.reads, world.reports[-1].has_acted) == ([], 3, False)


async def test_an_unreachable_cluster_holds_and_says_so_for_each_of_its_pipelines() -> None:
    down = KafkaUnavailable("no broker answers", advice="check bootstrapServers")
    world, loop = build(target("a"), target("b"), replicas=4, cluster_failures={"one": down})
    await loop.run_pass()
    assert [report.kafka_failure for report in world.reports] == [down, down]
    assert world.written == []


async def test_one_pipeline_s_missing_topic_is_not_its_neighbour_s() -> None:
    world, loop = build(target("a"), target("b"), flow=BUSY, failures={"a": TopicMissing("no topic a")})
    await loop.run_pass()
    assert [key for key, _, _ in world.written] == ["b"]


async def test_a_pipeline_that_fails_is_asked_about_less_and_less_often() -> None:
    world, loop = build(target("a"), cluster_failures={"one": KafkaUnavailable("down")})
    for _ in range(60):
        await loop.run_pass()
        world.now += 1
    assert len(world.asked) == 4  # at 0, 5, 15 and 35 seconds


async def test_an_unexpected_error_of_the_cluster_is_a_failure_and_not_the_end() -> None:
    world, loop = build(target("a"), target("b", cluster="two"), cluster_failures={"one": ZeroDivisionError()})
    await loop.run_pass()
    assert [report.kafka_failure is None for report in sorted(world.reports, key=lambda each: each.target.key)] == [
        False,
        True,
    ]


async def test_an_unexpected_error_while_acting_is_reported_and_not_the_end() -> None:
    world, loop = build(target("a"), flow=BUSY, scale_failure=ZeroDivisionError())
    await loop.run_pass()
    assert isinstance(world.reports[-1].failure, ZeroDivisionError)


async def test_a_status_that_cannot_be_written_does_not_stop_the_scaling() -> None:
    world, loop = build(target("a"), flow=BUSY, publish_fails=True)
    await loop.run_pass()
    assert world.replicas["a"] == 6


async def test_a_pipeline_without_a_deployment_is_reported_and_nothing_is_decided() -> None:
    world, loop = build(target("a"), flow=BUSY)
    world.replicas.clear()
    await loop.run_pass()
    assert (world.reports[-1].decision, world.written) == (None, [])


async def test_an_answer_that_leaves_a_pipeline_out_is_a_failure_of_its_own() -> None:
    world, loop = build(target("a"), answers_nothing=True)
    await loop.run_pass()
    assert world.reports[-1].kafka_failure is not None


async def test_the_loop_runs_on_its_clock_alone_and_stops_when_cancelled() -> None:
    world, loop = build(target("a"))
    running = asyncio.create_task(loop.run())
    await world.wait_for_reports(10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    seconds = [report.time_seconds for report in world.reports]
    gaps = [later - earlier for earlier, later in pairwise(seconds[1:])]
    assert all(4.5 <= gap <= 5.5 for gap in gaps)


async def test_the_loop_tells_when_it_last_looked() -> None:
    world, loop = build()
    world.now += 100
    await loop.run_pass()
    assert loop.last_tick_seconds == world.now
