"""What happens in a simulation: who sends how much, and what goes wrong when. Pure data.

A scenario says nothing of policies, so that each policy meets exactly the same world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds from `start` up to, not including, `end`."""

    start: int
    end: int

    def __contains__(self, second: int) -> bool:
        return self.start <= second < self.end


@dataclass(frozen=True, slots=True)
class Pods:
    """What a pod can do and how it comes, works and goes; seconds, and records per second."""

    per_second: float = 100.0
    startup_seconds: float = 30.0
    pause_seconds: int = 3
    """How long a partition that changes its pod stands still."""
    is_eager: bool = False
    """Whether every partition stands still when one moves (the classic protocol)."""
    commit_seconds: int = 5
    crash_seconds: int = 10
    """How long the group takes to notice that a pod died."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One world: `arrivals[t]` records arrive in second t."""

    name: str
    arrivals: Sequence[float]
    partitions: int = 60
    pods: Pods = field(default_factory=Pods)
    noise: float = 0.0
    """Standard deviation of a second's arrivals, as a factor of the square root of their number."""
    backlog: int = 0
    min_replicas: int = 1
    first_replicas: int = 1
    warmup_seconds: int = 300
    hot_share: float = 0.0
    hot: Span | None = None
    skew: float = 0.0
    """How unevenly keys spread: standard deviation of a partition's share, relative to an even one."""
    frozen: Span | None = None
    """When partition 0 finishes nothing."""
    ceiling_per_second: float = 0.0
    ceiling: Span | None = None
    slow_factor: float = 1.0
    slow: Span | None = None
    outage: Span | None = None
    """When Kafka's offsets cannot be read by anybody who scales."""
    partial: Span | None = None
    """When answers lack half of the partitions."""
    kill_every_seconds: int = 0
    deploys: tuple[int, ...] = ()
    grown_partitions: int = 0
    grown_at: int = 0

    @property
    def seconds(self) -> int:
        """Return how long it takes."""
        return len(self.arrivals)
