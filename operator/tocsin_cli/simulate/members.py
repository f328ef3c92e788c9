"""The consumer group of the simulation: pods that start, own partitions, and lose them to others.

Assignment is sticky, as Kafka's newer assignors are: a change of members moves as few partitions as an even
distribution allows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Pod:
    """One consumer. `ready_at` is when it joins; its counters are what a scrape would find."""

    name: str
    ready_at: float
    owned: list[int] = field(default_factory=list)
    processed: float = 0.0
    busy_seconds: float = 0.0
    is_member: bool = False


def assign(members: Iterable[Pod], partitions: int) -> set[int]:
    """Give every partition to a member, evenly and with few moves; return those that changed hands."""
    pods = list(members)
    if not pods:
        return set()
    fewest, extra = divmod(partitions, len(pods))
    moved: set[int] = set()
    free = sorted(set(range(partitions)) - {each for pod in pods for each in pod.owned})
    # The fullest keep one more each, as far as there are some.
    for rank, pod in enumerate(sorted(pods, key=lambda each: -len(each.owned))):
        allowed = fewest + (1 if rank < extra else 0)
        free += pod.owned[allowed:]
        del pod.owned[allowed:]
    for rank, pod in enumerate(sorted(pods, key=lambda each: -len(each.owned))):
        missing = fewest + (1 if rank < extra else 0) - len(pod.owned)
        taken, free = free[:missing], free[missing:]
        pod.owned += taken
        moved.update(taken)
    return moved
