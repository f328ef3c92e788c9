"""Observations for scaling tests: a steady flow, looked at as often as the config says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tocsin_core.lag import PartitionOffsets
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import Config, Decision, Observation, Quality, Replicas, State

EPOCH = 1_000_000.0


@dataclass(frozen=True)
class Flow:
    """A topic into which `per_second` arrive and of which `lag` records are always left to finish."""

    per_second: float = 100.0
    lag: int = 0
    partitions: int = 12
    spec: int = 1
    ready: int | None = None
    offset: int = 1_000_000

    def look(self, seconds: float) -> Observation:
        """Return the observation at a time."""
        ends = [self.offset + int(self.per_second * seconds / self.partitions)] * self.partitions
        lags = spread(self.lag, self.partitions)
        return build_observation(
            seconds,
            [(end, end - lag) for end, lag in zip(ends, lags, strict=True)],
            spec=self.spec,
            ready=self.ready,
        )

    def looks(self, start: float, end: float, step: float) -> list[Observation]:
        """Return the observations from `start` to `end`, `step` seconds apart."""
        return [self.look(start + index * step) for index in range(int((end - start) / step) + 1)]


def spread(total: int, parts: int) -> list[int]:
    """Return `total` split as evenly as whole numbers can be."""
    return [total // parts + (1 if index < total % parts else 0) for index in range(parts)]


def build_observation(
    seconds: float,
    offsets: Sequence[tuple[int, int | None]],
    *,
    spec: int = 1,
    ready: int | None = None,
    log_start: int = 0,
    quality: Quality | None = None,
) -> Observation:
    """Return an observation of (end, committed) pairs."""
    return Observation(
        time_seconds=EPOCH + seconds,
        partitions=tuple(
            PartitionOffsets(number, log_start, end, committed) for number, (end, committed) in enumerate(offsets)
        ),
        replicas=Replicas(spec=spec, ready=spec if ready is None else ready),
        quality=quality or Quality(),
    )


def replay(observations: Iterable[Observation], config: Config, state: State | None = None) -> tuple[Decision, State]:
    """Return the last decision over a sequence, and the state after it; the number never moves by itself."""
    state = state or State()
    decision = None
    for observation in observations:
        decision, state = decide(observation, state, config)
    assert decision is not None
    return decision, state
