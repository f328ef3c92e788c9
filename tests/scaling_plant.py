"""A small plant for scaling tests: partitions that fill, pods that start, work, pause and commit.

One simulated second per step; arrivals spread evenly over partitions, a pod shares its capacity among its own, a
change of members pauses the partitions that move. Commits trail what is finished by `commit_seconds`.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from tocsin_core.lag import PartitionOffsets
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import Config, Decision, Observation, Replicas, State


@dataclass
class Plant:
    """The world that a decision is tested in."""

    config: Config
    rate: Callable[[int], float]
    partitions: int = 12
    pod_per_second: float = 100.0
    startup_seconds: int = 2
    rebalance_seconds: int = 1
    commit_seconds: int = 1
    noise: float = 0.0
    seed: int = 1
    replicas: int = 1
    state: State = field(default_factory=State)
    decisions: list[Decision] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._arrived = [0.0] * self.partitions
        self._finished = [[0.0] * self.partitions]
        self._arrivals: list[list[float]] = [[0.0] * self.partitions]
        self._ready = self.replicas
        self._starting: list[int] = []
        self._paused_until = -1

    def run(self, seconds: int) -> None:
        """Let time pass; decide at every second that is a multiple of the interval."""
        for _ in range(seconds):
            self._step(len(self._arrivals))

    @property
    def actions(self) -> list[Decision]:
        """Return the decisions that moved the number."""
        return [decision for decision in self.decisions if decision.is_action]

    def _step(self, now: int) -> None:
        self._start_pods(now)
        self._arrive(now)
        self._work(now)
        self.ages.append(self._true_age(now))
        self.counts.append(self.replicas)
        if now % int(self.config.interval_seconds) == 0:
            self._decide(now)

    def _start_pods(self, now: int) -> None:
        ready = sum(1 for at in self._starting if at <= now)
        if ready:
            self._starting = [at for at in self._starting if at > now]
            self._ready += ready
            self._paused_until = now + self.rebalance_seconds

    def _arrive(self, now: int) -> None:
        rate = self.rate(now) * max(0.0, 1 + self._random.gauss(0, self.noise))
        self._arrived = [count + rate / self.partitions for count in self._arrived]
        self._arrivals.append(self._arrived)

    def _work(self, now: int) -> None:
        finished = list(self._finished[-1])
        if now >= self._paused_until and self._ready:
            for pod in range(min(self._ready, self.partitions)):
                self._work_pod(range(pod, self.partitions, self._ready), finished)
        self._finished.append(finished)

    def _work_pod(self, owned: range, finished: list[float]) -> None:
        left = self.pod_per_second
        for index, partition in enumerate(owned):  # an even share of what is left, so nothing is wasted
            share = left / (len(owned) - index)
            done = min(share, self._arrived[partition] - finished[partition])
            finished[partition] += done
            left -= done

    def _true_age(self, now: int) -> float:
        done = min(self._finished[-1])
        reached = bisect_right(self._arrivals, done + 1e-9, key=lambda ends: ends[0])
        return float(max(0, now - min(now, reached)))

    def _decide(self, now: int) -> None:
        committed = self._finished[max(0, len(self._finished) - 1 - self.commit_seconds)]
        partitions = tuple(
            PartitionOffsets(index, 0, int(self._arrived[index]), int(committed[index]))
            for index in range(self.partitions)
        )
        replicas = Replicas(spec=self.replicas, ready=self._ready)
        observation = Observation(time_seconds=1e6 + now, partitions=partitions, replicas=replicas)
        decision, self.state = decide(observation, self.state, self.config)
        self.decisions.append(decision)
        self._apply(decision.replicas, now)

    def _apply(self, wanted: int, now: int) -> None:
        if wanted > self.replicas:
            self._starting += [now + self.startup_seconds] * (wanted - self.replicas)
        elif wanted < self.replicas:
            self._ready, self._starting = wanted, []
            self._paused_until = now + self.rebalance_seconds
        self.replicas = wanted
