"""KEDA's Kafka scaler behind a HorizontalPodAutoscaler: ⌈Σ lag / lagThreshold⌉, as published.

KEDA sums the lag over partitions (a partition missing in the answer has none), cuts the sum at one threshold a
partition when the whole quotient is larger, and may round it up to a number that divides the partitions. The HPA
ignores what is within its tolerance of the present number, takes the highest wish of its downscale window, and limits
each step. Sources: `kafka_scaler.go` of KEDA 2.x; the HPA's algorithm and defaults in Kubernetes' documentation.
"""

from __future__ import annotations

import math
from collections import deque

from tocsin_cli.simulate.plant import Look
from tocsin_cli.simulate.policies.base import Terms

SYNC_SECONDS = 15
DOWN_WINDOW_SECONDS = 300
UP_PODS = 4
UP_FACTOR = 2
POLL_SECONDS = 30
IDLE_COOLDOWN_SECONDS = 300


class Keda:
    """One trigger and its HPA. `threshold` is lagThreshold, in records."""

    interval_seconds = SYNC_SECONDS

    def __init__(self, terms: Terms, *, threshold: float, is_even: bool = False, tolerance: float = 0.1) -> None:
        self._terms = terms
        self._threshold = threshold
        self._is_even = is_even
        self._tolerance = tolerance
        self._wishes: deque[tuple[int, int]] = deque()
        self._active_at = 0

    def decide(self, look: Look) -> int:
        """Return the HPA's number, or KEDA's own at and to zero."""
        if not look.is_answered:
            return look.replicas
        lag = look.total_lag
        if lag > 0:
            self._active_at = look.second
        if self._terms.min_replicas == 0 and (look.replicas == 0 or lag == 0):
            idle_seconds = look.second - self._active_at
            if look.replicas == 0:
                return 1 if lag > 0 and look.second % POLL_SECONDS == 0 else 0
            if idle_seconds >= IDLE_COOLDOWN_SECONDS:
                return 0
        return self._scale(look, self._cut(lag, look.partitions))

    def _cut(self, lag: float, partitions: int) -> float:
        """Return the metric that KEDA hands to the HPA."""
        if self._is_even:
            factors = [each for each in range(1, partitions + 1) if partitions % each == 0]
            enough = next((each for each in factors if each * self._threshold >= lag), partitions)
            lag = self._threshold * enough
        return self._threshold * partitions if lag // self._threshold > partitions else lag

    def _scale(self, look: Look, metric: float) -> int:
        wish = look.replicas
        ratio = metric / (self._threshold * look.replicas)
        if not 1 - self._tolerance <= ratio <= 1 + self._tolerance:
            wish = math.ceil(metric / self._threshold)
        wish = max(1, self._terms.clamp(wish))
        self._wishes.append((look.second, wish))
        while self._wishes[0][0] <= look.second - DOWN_WINDOW_SECONDS:
            self._wishes.popleft()
        if wish > look.replicas:
            return min(wish, max(look.replicas + UP_PODS, look.replicas * UP_FACTOR))
        return min(look.replicas, max(each for _, each in self._wishes))
