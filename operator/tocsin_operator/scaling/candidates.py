"""Rule 6: which counts are worth considering, and what each would mean for its busiest pod.

A group shares whole partitions: of 12, five pods hold 3, 3, 2, 2, 2, and the busiest works as hard as with four. Only
counts that lower the busiest pod's number of partitions change anything, so only those are candidates, beside the least
that the owner wants. A most of eight is six for them: eight would cost a third more and be as busy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tocsin_operator.scaling.model import Candidate, Config, LimitedBy


class Bounds(NamedTuple):
    """The range that is allowed: never more than there are partitions, and no pods only for who may rest."""

    lower: int
    upper: int
    lower_limit: LimitedBy
    upper_limit: LimitedBy


class Load(NamedTuple):
    """What a count has to carry, per second, and what waits already.

    `sharing` of the partitions bring it (None: all of them), and the fullest of those bring the `largest` numbers.
    """

    per_second: float
    backlog: int
    capacity_per_second: float
    partitions: int
    sharing: int | None = None
    largest_per_second: float = 0.0
    largest_backlog: int = 0


def build_bounds(config: Config, partitions: int | None, *, may_rest: bool = False) -> Bounds:
    """Return the allowed range; a minimum above the partitions gives way, because pods beyond them stay idle.

    A minimum of zero is one pod for as long as there is anything to do.
    """
    ceiling = config.max_replicas if partitions is None else min(config.max_replicas, partitions)
    upper = max(1, ceiling)
    lower = max(0 if may_rest else 1, min(config.min_replicas, upper))
    is_partitions = partitions is not None and partitions < config.max_replicas
    upper_limit = LimitedBy.PARTITIONS if is_partitions else LimitedBy.MAX_REPLICAS
    lower_limit = LimitedBy.MIN_REPLICAS if config.min_replicas <= upper else upper_limit
    return Bounds(lower, upper, lower_limit, upper_limit)


def list_counts(partitions: int, bounds: Bounds) -> tuple[int, ...]:
    """Return the counts that lower the busiest pod's number of partitions, within bounds, and the lower bound."""
    useful = {-(-partitions // held) for held in range(1, partitions + 1)}
    return tuple(sorted({count for count in useful if bounds.lower <= count <= bounds.upper} | {bounds.lower}))


def measure_busiest(replicas: int, load: Load, total: float, largest: float) -> float:
    """Return the busiest pod's part of a total: the fullest partition, and as many average ones as it can hold."""
    sharing = load.partitions if load.sharing is None else load.sharing
    if sharing == 0 or total == 0:
        return 0.0
    if replicas == 0:
        return math.inf
    held = min(-(-load.partitions // replicas), sharing)
    fullest = max(largest, total / sharing)
    return fullest + (held - 1) * (total - fullest) / max(1, sharing - 1)


def measure_utilisation(replicas: int, load: Load) -> float:
    """Return the busiest pod's load as a share of its capacity."""
    return measure_busiest(replicas, load, load.per_second, load.largest_per_second) / load.capacity_per_second


def measure_company(replicas: int, load: Load) -> float:
    """Return what the ordinary partitions that share a pod with a lonely one take of it."""
    held = -(-load.partitions // replicas) - 1
    mean = load.per_second / load.sharing if load.sharing else 0.0
    return held * mean / load.capacity_per_second


def measure_wait_seconds(replicas: int, load: Load) -> float:
    """Return how long the newest record of the backlog waits, which is the lag in seconds that is still to come."""
    return measure_busiest(replicas, load, load.backlog, load.largest_backlog) / load.capacity_per_second


def measure_drain_seconds(replicas: int, load: Load) -> float | None:
    """Return the seconds until the busiest pod has finished its backlog beside what arrives; None means never."""
    if load.backlog == 0:
        return 0.0
    spare = 1 - measure_utilisation(replicas, load)
    return measure_wait_seconds(replicas, load) / spare if spare > 0 else None


def assess(replicas: int, load: Load, *, utilisation_limit: float, drain_limit_seconds: float) -> Candidate:
    """Return what the count would mean, and why it would not be enough."""
    utilisation = measure_utilisation(replicas, load)
    drain_seconds = measure_drain_seconds(replicas, load)
    refusal = ""
    if utilisation > utilisation_limit:
        refusal = f"busiest pod at {utilisation:.0%} of its capacity, above {utilisation_limit:.0%}"
    elif drain_seconds is None or drain_seconds > drain_limit_seconds:
        shown = "never" if drain_seconds is None else f"in {drain_seconds:.0f} s"
        refusal = f"drains the backlog {shown}, later than {drain_limit_seconds:.0f} s"
    return Candidate(replicas=replicas, utilisation=utilisation, drain_seconds=drain_seconds, refusal=refusal)
