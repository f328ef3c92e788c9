"""One policy in one world, and what came of it. Pure and seeded."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from itertools import pairwise

from tocsin_cli.simulate.plant import Plant
from tocsin_cli.simulate.policies.base import Policy, Terms
from tocsin_cli.simulate.policies.choice import build_policy
from tocsin_cli.simulate.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Score:
    """What a policy did to a promise and to a bill, after the warm-up."""

    over_promise_seconds: int
    max_lag_seconds: int
    replica_seconds: int
    actions: int
    moves: int
    reversals: int


@dataclass(slots=True)
class Run:
    """A simulated run, second by second, for the picture."""

    policy: str
    score: Score
    lag_seconds: array[int] = field(default_factory=lambda: array("i"))
    replicas: array[int] = field(default_factory=lambda: array("i"))


def simulate(scenario: Scenario, policy: str, terms: Terms, *, seed: int) -> Run:
    """Return what a named policy made of the scenario."""
    return simulate_policy(scenario, build_policy(policy, terms), policy, terms, seed=seed)


def simulate_policy(scenario: Scenario, policy: Policy, name: str, terms: Terms, *, seed: int) -> Run:
    """Return what this very policy made of the scenario."""
    plant = Plant(scenario, seed=seed)
    ages, counts = array("i"), array("i")
    moves_before = 0
    for second in range(scenario.seconds):
        if second == scenario.warmup_seconds:
            moves_before = plant.moves
        plant.step()
        ages.append(plant.age)
        counts.append(plant.replicas)
        if second % policy.interval_seconds == 0:
            wanted = policy.decide(plant.look())
            if wanted != plant.replicas:
                plant.scale_to(wanted)
    warmup = scenario.warmup_seconds
    score = build_score(ages[warmup:], counts[warmup:], plant.moves - moves_before, terms.max_lag_seconds)
    return Run(name, score, ages, counts)


def build_score(ages: array[int], counts: array[int], moves: int, max_lag_seconds: float) -> Score:
    """Return the score of a run's seconds."""
    steps = [after - before for before, after in pairwise(counts) if after != before]
    turns = sum(1 for before, after in pairwise(steps) if (before > 0) != (after > 0))
    return Score(
        over_promise_seconds=sum(age > max_lag_seconds for age in ages),
        max_lag_seconds=max(ages, default=0),
        replica_seconds=sum(counts),
        actions=len(steps),
        moves=moves,
        reversals=turns,
    )
