"""What a policy is to the simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tocsin_cli.simulate.plant import Look


@dataclass(frozen=True, slots=True)
class Terms:
    """What every policy is told: the promise, the range, and what a pod can do, for those that have to be told."""

    max_lag_seconds: float = 30.0
    min_replicas: int = 1
    max_replicas: int = 60
    capacity_per_second: float = 100.0

    def clamp(self, replicas: float) -> int:
        """Return the number within the range."""
        return int(min(self.max_replicas, max(self.min_replicas, replicas)))


class Policy(Protocol):
    """Looks every `interval_seconds` and says how many pods there should be."""

    interval_seconds: int

    def decide(self, look: Look) -> int:
        """Return the wanted number of pods."""
        ...
