"""Tocsin's own decision, fed as its loop feeds it."""

from __future__ import annotations

from tocsin_cli.simulate.plant import Look
from tocsin_cli.simulate.policies.base import Terms
from tocsin_core.lag import PartitionOffsets
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import (
    Config,
    ConsumerCounters,
    Decision,
    Observation,
    Quality,
    Replicas,
    State,
)

EPOCH_SECONDS = 1e6


class Tocsin:
    """The rules with their defaults. What a pod can do they have to find out: `terms.capacity_per_second` is not read.

    `decisions` keeps every decision, `config` what it was made with.
    """

    def __init__(self, terms: Terms, *, config: Config | None = None, reads_pods: bool = True) -> None:
        self.config = config or build_config(terms)
        self.interval_seconds = int(self.config.interval_seconds)
        self.decisions: list[Decision] = []
        self._reads_pods = reads_pods
        self._count_at = 0.0
        self._state = State()

    def decide(self, look: Look) -> int:
        """Return what the rules want."""
        is_due = look.second >= self._count_at
        if is_due:
            self._count_at = look.second + self.config.count_seconds - self.config.interval_seconds / 2
        observation = build_observation(look, reads_pods=self._reads_pods and is_due)
        decision, self._state = decide(observation, self._state, self.config)
        self.decisions.append(decision)
        return decision.replicas


def build_config(terms: Terms) -> Config:
    """Return the defaults of a resource with this promise and range."""
    return Config(
        max_lag_seconds=terms.max_lag_seconds, min_replicas=terms.min_replicas, max_replicas=terms.max_replicas
    )


def build_observation(look: Look, *, reads_pods: bool = True) -> Observation:
    """Return what the loop would have observed."""
    pairs = enumerate(zip(look.ends, look.committed, strict=True))
    partitions = tuple(
        PartitionOffsets(index, 0, end, done) for index, (end, done) in pairs if index not in look.missing
    )
    counters = tuple(
        ConsumerCounters(pod=name, processed_total=processed, busy_slot_seconds_total=busy, concurrency=1)
        for name, processed, busy in look.pods
    )
    return Observation(
        time_seconds=EPOCH_SECONDS + look.second,
        partitions=partitions if look.is_answered else (),
        replicas=Replicas(spec=look.replicas, ready=look.ready),
        consumers=counters if reads_pods else None,
        quality=Quality() if look.is_answered else Quality(is_complete=False, detail="no answer"),
    )
