"""The Flink operator's autoscaler (after DS2), as published, with a consumer group in the place of a job vertex.

Arrival rate over true processing rate (throughput over the busy share), a catch-up term for the lag, a dead band, and
parallelism aligned to the partitions. Source: the operator's documentation of its options, and its evaluator and
aligner. A rescale of a consumer group costs a rebalance and not a restart from a savepoint.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from tocsin_cli.simulate.plant import Look
from tocsin_cli.simulate.policies.base import Terms

RECONCILE_SECONDS = 60
TARGET, UPPER, LOWER = 0.7, 1.0, 0.4
BACKLOG_SECONDS = 300
DOWN_FACTOR = 0.6


@dataclass(frozen=True, slots=True)
class Options:
    """The operator's options, in seconds, with their defaults; the restart is a rebalance and a pod's start."""

    window: int = 900
    stabilisation: int = 300
    catch_up: int = 1_800
    restart: int = 300
    down_interval: int = 3_600


FAST = Options(window=120, stabilisation=60, catch_up=60, restart=33, down_interval=600)


class Flink:
    """One vertex: the source."""

    interval_seconds = RECONCILE_SECONDS

    def __init__(self, terms: Terms, options: Options | None = None) -> None:
        self._terms = terms
        self._options = options or Options()
        self.interval_seconds = min(RECONCILE_SECONDS, self._options.stabilisation // 2)
        self._looks: deque[Look] = deque()
        self._stable_at = 0
        self._wishes: list[tuple[int, int]] = []

    def decide(self, look: Look) -> int:
        """Return the parallelism for the window that ends now; none moves before the window is full again."""
        options = self._options
        if not look.is_answered or look.missing or look.ready < look.replicas or look.second < self._stable_at:
            return look.replicas
        if self._looks and self._looks[-1].partitions != look.partitions:
            self._looks.clear()
        self._looks.append(look)
        while look.second - self._looks[0].second > options.window:
            self._looks.popleft()
        if look.second - self._looks[0].second < min(options.window, options.stabilisation):
            return look.replicas
        wanted = self._evaluate(look)
        if wanted != look.replicas:
            self._looks.clear()
            self._wishes.clear()
            self._stable_at = look.second + options.stabilisation
        return wanted

    def _evaluate(self, look: Look) -> int:
        options, first = self._options, self._looks[0]
        seconds = look.second - first.second
        arrival = (sum(look.ends) - sum(first.ends)) / seconds
        processed = (sum(look.committed) - sum(first.committed)) / seconds
        true_rate = processed / max(0.01, self._measure_busiest(first, look, seconds))
        if true_rate <= 0:
            return look.replicas
        lag = look.total_lag
        is_behind = arrival > 0 and lag / arrival > BACKLOG_SECONDS

        def capacity(utilisation: float, *, with_restart: bool) -> float:
            restart = arrival * options.restart / options.catch_up if with_restart else 0.0
            rate = arrival / utilisation if utilisation else math.inf
            return lag / options.catch_up + restart + rate

        lower = 0.0 if is_behind else LOWER
        if capacity(UPPER, with_restart=False) <= true_rate <= capacity(lower, with_restart=True):
            self._wishes.clear()
            return look.replicas
        factor = max(1 - DOWN_FACTOR, capacity(TARGET, with_restart=True) / true_rate)
        wish = self._align(look, self._terms.clamp(min(look.partitions, math.ceil(factor * look.replicas))))
        return self._persist(look, wish)

    def _measure_busiest(self, first: Look, look: Look, seconds: int) -> float:
        before = {name: busy for name, _, busy in first.pods}
        shares = [(busy - before[name]) / seconds for name, _, busy in look.pods if name in before]
        return max(shares, default=1.0)

    def _align(self, look: Look, wish: int) -> int:
        """Return the next count that divides the partitions or lowers what each subtask reads at least."""
        wish = max(1, wish)
        last = look.partitions if wish > look.replicas else look.replicas
        for count in range(wish, min(last, self._terms.max_replicas) + 1):
            if look.partitions % count == 0 or look.partitions // count < look.partitions // wish:
                return count
        return wish

    def _persist(self, look: Look, wish: int) -> int:
        """Return an increase at once, a decrease after it was wanted for the interval, at its highest."""
        if wish >= look.replicas:
            self._wishes.clear()
            return max(wish, self._terms.min_replicas, 1)
        self._wishes.append((look.second, wish))
        if look.second - self._wishes[0][0] < self._options.down_interval:
            return look.replicas
        return max(1, self._terms.min_replicas, *(each for _, each in self._wishes))
