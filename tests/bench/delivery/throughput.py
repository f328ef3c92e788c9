"""How many deliveries a second and how much CPU for each: one contestant, one sink, one stretch of steady work.

The stretch begins a second after the first delivery, so that starting, joining the group and opening connections are
in nobody's numbers, and both its ends read the sink's count and the kernel's CPU counters at the same moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.delivery.contestants import CONTESTANTS, Job, Runner, running
from bench.delivery.stage import Stage
from bench.errors import BenchError
from bench.proc import read_cpu_seconds, read_resident_megabytes

WARM_UP_SECONDS = 1.0
MICROSECONDS = 1_000_000
NO_OP = "no-op"


@dataclass(frozen=True)
class Scene:
    """One sink, and how long it is posted to."""

    name: str
    delay_ms: int | None
    seconds: float


@dataclass(frozen=True)
class Content:
    """What is consumed: a topic, and how many records it holds."""

    topic: str
    records: int


@dataclass(frozen=True)
class Sample:
    """What one stretch has shown. CPU is in microseconds per delivery."""

    contestant: str
    scene: str
    deliveries: int
    seconds: float
    cpu_us: float
    broker_cpu_us: float
    store_cpu_us: float
    sink_cpu_us: float
    resident_megabytes: float

    @property
    def per_second(self) -> float:
        """Return the deliveries per second."""
        return self.deliveries / self.seconds

    @property
    def per_cpu_second(self) -> float:
        """Return the deliveries per second of the contestant's CPU."""
        return MICROSECONDS / self.cpu_us if self.cpu_us else 0.0


@dataclass(frozen=True)
class Reading:
    """All counters at one moment."""

    moment: float
    count: int
    cpu_seconds: float
    broker_cpu_seconds: float
    store_cpu_seconds: float
    sink_cpu_seconds: float


def measure_round(stage: Stage, content: Content, scene: Scene, round_number: int) -> list[Sample]:
    """Measure every contestant once on one sink, one after the other."""
    return [_measure(stage, content, scene, contestant, round_number) for contestant in CONTESTANTS]


def _measure(stage: Stage, content: Content, scene: Scene, contestant: str, round_number: int) -> Sample:
    stage.forget_claims()
    name = f"{contestant}-{scene.name}-{round_number}".replace(" ", "")
    address = None if scene.delay_ms is None else stage.sink.open(name, delay_ms=scene.delay_ms)
    with running(stage, contestant, Job(name, content.topic, [("hook", address)] if address else [])) as runner:
        count = runner.count_own if address is None else lambda: stage.sink.count(name)
        runner.wait_or_fail(lambda: count() > 0, what="a first delivery")
        if address is not None:  # without a sink a loop is through before a second has passed
            runner.wait_for(lambda: False, seconds=WARM_UP_SECONDS)
        before = _read(stage, runner, count)
        runner.wait_for(lambda: count() >= content.records, seconds=scene.seconds)
        after = _read(stage, runner, count)
        resident = read_resident_megabytes(runner.process_id)
    if after.count == before.count:
        raise BenchError(f"{name}: nothing was delivered after the warm-up; more --messages than {content.records}?")
    return _build_sample(contestant, scene.name, before, after, resident)


def _read(stage: Stage, runner: Runner, count: Callable[[], int]) -> Reading:
    return Reading(
        time.monotonic(),
        count(),
        read_cpu_seconds(runner.process_id),
        read_cpu_seconds(stage.kafka.pid),
        read_cpu_seconds(stage.valkey.pid),
        read_cpu_seconds(stage.sink.process_id),
    )


def _build_sample(contestant: str, scene: str, before: Reading, after: Reading, resident: float) -> Sample:
    deliveries = after.count - before.count
    each = MICROSECONDS / deliveries
    return Sample(
        contestant,
        scene,
        deliveries,
        after.moment - before.moment,
        (after.cpu_seconds - before.cpu_seconds) * each,
        (after.broker_cpu_seconds - before.broker_cpu_seconds) * each,
        (after.store_cpu_seconds - before.store_cpu_seconds) * each,
        (after.sink_cpu_seconds - before.sink_cpu_seconds) * each,
        resident,
    )
