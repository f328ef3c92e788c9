"""Numaflow's vertex scaling, as published: pending over processing rate, held against a target in seconds.

desired = round(pending / rate / target * ready), at most two more or fewer at a time, with a cooldown each way. Its
rate is throughput and not capacity, so a vertex that keeps up is made smaller until it does not. Source: Numaflow's
documentation of autoscaling and its scaler.
"""

from __future__ import annotations

from collections import deque

from tocsin_cli.simulate.plant import Look
from tocsin_cli.simulate.policies.base import Terms

TICK_SECONDS = 30
LOOK_BACK_SECONDS = 120
COOLDOWN_SECONDS = 90
TARGET_SECONDS = 20
STEP = 2
SLEEP_SECONDS = 120


class Numaflow:
    """One source vertex with the defaults."""

    interval_seconds = TICK_SECONDS

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._looks: deque[Look] = deque()
        self._scaled_at = -COOLDOWN_SECONDS

    def decide(self, look: Look) -> int:
        """Return at most two pods more or fewer."""
        if not look.is_answered or look.missing:
            return look.replicas
        self._looks.append(look)
        while look.second - self._looks[0].second > LOOK_BACK_SECONDS:
            self._looks.popleft()
        if look.second - self._scaled_at < (COOLDOWN_SECONDS if look.replicas else SLEEP_SECONDS):
            return look.replicas
        if look.replicas == 0:  # it cannot see what waits for it, and looks in from time to time
            return self._move(look, 1)
        if look.ready == 0 or len(self._looks) < 2:  # noqa: PLR2004 - a rate needs two looks
            return look.replicas
        return self._move(look, self._want(look))

    def _want(self, look: Look) -> int:
        first, pending = self._looks[0], look.total_lag
        finished = sum(look.committed) - sum(first.committed)
        rate = finished / (look.second - first.second)
        if pending == 0 and rate == 0:
            return 0
        if rate == 0:
            return look.replicas
        desired = round(pending / rate / TARGET_SECONDS * look.ready)
        return min(max(1, desired), max(1, pending))

    def _move(self, look: Look, wanted: int) -> int:
        step = max(-STEP, min(STEP, wanted - look.replicas))
        target = min(self._terms.clamp(look.replicas + step), look.partitions)
        if target != look.replicas:
            self._scaled_at = look.second
        return target
