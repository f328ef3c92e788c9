"""What a real run came to, from what was seen about once a second: the same score that a simulated run gets. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tocsin_cli.simulate.run import Run, build_score
from tocsin_cli.simulate.scenario import Scenario


class Sample(NamedTuple):
    """What was seen of one arm, `at` so many seconds into the trace; `replicas` is what its Deployment asks for."""

    at: float
    age_seconds: float
    lag: int
    replicas: int
    ready: int
    owners: Mapping[int, str]


def judge(policy: str, samples: Sequence[Sample], scenario: Scenario, *, max_lag_seconds: float) -> Run:
    """Return the run second by second, and its score after the warm-up."""
    ages = fill_seconds(samples, scenario.seconds, lambda sample: int(sample.age_seconds))
    counts = fill_seconds(samples, scenario.seconds, lambda sample: sample.replicas)
    warmup = scenario.warmup_seconds
    moves = count_moves(sample.owners for sample in samples if sample.at >= warmup)
    return Run(policy, build_score(ages[warmup:], counts[warmup:], moves, max_lag_seconds), ages, counts)


def fill_seconds(samples: Sequence[Sample], seconds: int, read: Callable[[Sample], int]) -> array[int]:
    """Return a value for each second: that of the last sample taken by its end, the first one's before any was."""
    values = array("i")
    position = 0
    for second in range(seconds):
        while position + 1 < len(samples) and samples[position + 1].at <= second + 1:
            position += 1
        values.append(read(samples[position]))
    return values


def count_moves(seen: Iterable[Mapping[int, str]]) -> int:
    """Return how often a partition was found with another member than the last one that had it.

    A partition that nobody holds for a moment has not moved yet.
    """
    known: dict[int, str] = {}
    moves = 0
    for owners in seen:
        moves += sum(known.get(partition, member) != member for partition, member in owners.items())
        known.update(owners)
    return moves


def find_silence(samples: Sequence[Sample]) -> float:
    """Return the longest time between two samples, in seconds: a run that was not looked at cannot be judged."""
    return max((after.at - before.at for before, after in pairwise(samples)), default=float("inf"))
