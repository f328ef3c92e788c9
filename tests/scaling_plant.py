"""The simulation's own plant, driven by a load given as a function and by rules given as a config."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tocsin_cli.simulate.policies.base import Terms
from tocsin_cli.simulate.policies.tocsin import Tocsin
from tocsin_cli.simulate.run import simulate_policy
from tocsin_cli.simulate.scenario import Pods, Scenario
from tocsin_operator.scaling.model import Config, Decision


@dataclass
class Plant:
    """The world that a decision is tested in; pods' counters are not read unless a test says so."""

    config: Config
    rate: Callable[[int], float]
    partitions: int = 12
    pod_per_second: float = 100.0
    startup_seconds: int = 2
    rebalance_seconds: int = 1
    commit_seconds: int = 1
    noise: float = 0.0
    seed: int = 1
    reads_pods: bool = False
    decisions: list[Decision] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)

    def run(self, seconds: int) -> None:
        """Let time pass; decide at every second that is a multiple of the interval."""
        dice = random.Random(self.seed)
        arrivals = [self.rate(second) * max(0.0, 1 + dice.gauss(0, self.noise)) for second in range(seconds)]
        pods = Pods(
            per_second=self.pod_per_second,
            startup_seconds=self.startup_seconds,
            pause_seconds=self.rebalance_seconds,
            commit_seconds=self.commit_seconds,
        )
        scenario = Scenario("test", arrivals, partitions=self.partitions, pods=pods, warmup_seconds=0)
        terms = Terms(self.config.max_lag_seconds, self.config.min_replicas, self.config.max_replicas)
        policy = Tocsin(terms, config=self.config, reads_pods=self.reads_pods)
        run = simulate_policy(scenario, policy, "tocsin", terms, seed=self.seed)
        self.decisions, self.counts, self.ages = policy.decisions, list(run.replicas), list(map(float, run.lag_seconds))

    @property
    def actions(self) -> list[Decision]:
        """Return the decisions that moved the number."""
        return [decision for decision in self.decisions if decision.is_action]
