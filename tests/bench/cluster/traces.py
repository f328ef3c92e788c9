"""The loads of the real runs, as the simulation's scenarios, and how each is dealt to partitions. Pure.

A pod does ten a second because its receiver answers after half a second and five deliveries are in flight, so that its
capacity is known to KEDA's threshold and independent of the machine. Six minutes each: windows that are five minutes
by default look back over one here, for both sides.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tocsin_cli.simulate.policies.base import Terms
from tocsin_cli.simulate.scenario import Pods, Scenario, Span

PARTITIONS = 12
CONCURRENCY = 5
DELAY_MS = 500
PER_SECOND = CONCURRENCY * 1_000 / DELAY_MS
TERMS = Terms(max_lag_seconds=20, max_replicas=8, capacity_per_second=PER_SECOND)
LAG_THRESHOLD = int(5 * PER_SECOND)
"""KEDA's: what a pod does in five seconds."""
LOOK_BACK_SECONDS = 60
COOLDOWN_SECONDS = 30
WARMUP_SECONDS = 30
POLL_SECONDS = 5
RECIPIENTS = 40
"""In each partition, so that no recipient's order limits a pod."""
HANGING = "hangs"
"""The recipient of everything in the partition that is stuck."""

CALM, RUSH, BURST = 7.5, 50.0, 75.0
TROUBLE = Span(60, 240)


def _build(name: str, arrivals: list[float], **troubles: Span | float | None) -> Scenario:
    # Start-up and commits are this image's, seen on a node with two cores.
    pods = Pods(per_second=PER_SECOND, startup_seconds=8.0, pause_seconds=1, commit_seconds=1)
    return Scenario(
        name,
        arrivals,
        partitions=PARTITIONS,
        pods=pods,
        warmup_seconds=WARMUP_SECONDS,
        **troubles,  # type: ignore[arg-type]
    )


TRACES = {
    scenario.name: scenario
    for scenario in (
        _build("step", [CALM] * 60 + [RUSH] * 120 + [CALM] * 180),
        _build("spike", ([CALM] * 60 + [BURST] * 30 + [CALM] * 90) * 2),
        _build("hot", [CALM] * 60 + [30.0] * 180 + [CALM] * 120, hot_share=0.55, hot=TROUBLE),
        _build("stuck", [CALM] * 60 + [15.0] * 180 + [CALM] * 120, frozen=Span(60, 360)),
    )
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One notification that is due."""

    partition: int
    recipient: str


class Dealer:
    """Deals a scenario's arrivals to partitions and their recipients; the same seed deals the same."""

    def __init__(self, scenario: Scenario, *, seed: int) -> None:
        self._scenario = scenario
        self._dice = random.Random(seed)
        # Partitions are owed their next one at different times, or all would get theirs in the same instant.
        self._owed = [self._dice.random() for _ in range(scenario.partitions)]

    def deal(self, second: int, part: float) -> Iterator[Arrival]:
        """Give what is due in that part of the second."""
        is_stuck = self._scenario.frozen is not None and second in self._scenario.frozen
        count = self._scenario.arrivals[second] * part
        for partition, share in enumerate(share_out(self._scenario, second)):
            self._owed[partition] += count * share
            while self._owed[partition] >= 1:
                self._owed[partition] -= 1
                recipient = HANGING if is_stuck and partition == 0 else str(self._dice.randrange(RECIPIENTS))
                yield Arrival(partition, build_recipient(partition, recipient))


def share_out(scenario: Scenario, second: int) -> list[float]:
    """Return each partition's share of a second's arrivals; a hot one is the first."""
    even = 1 / scenario.partitions
    if scenario.hot is None or second not in scenario.hot:
        return [even] * scenario.partitions
    rest = (1 - scenario.hot_share) / (scenario.partitions - 1)
    return [scenario.hot_share, *[rest] * (scenario.partitions - 1)]


def build_recipient(partition: int, name: str) -> str:
    """Return a recipient's id."""
    return f"{partition}-{name}"


def list_recipients() -> list[str]:
    """Return everybody who gets anything."""
    names = [*map(str, range(RECIPIENTS)), HANGING]
    return [build_recipient(partition, name) for partition in range(PARTITIONS) for name in names]
