"""Everything the rules look at, measured once per observation.

The rules only compare; what they compare is computed here, so that each number in an explanation has one origin.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import msgspec

from tocsin_core.lag import CAUGHT_UP, LagSeconds
from tocsin_operator.scaling.busy import Busy
from tocsin_operator.scaling.candidates import (
    Bounds,
    Load,
    assess,
    build_bounds,
    list_counts,
    measure_company,
    measure_utilisation,
    measure_wait_seconds,
)
from tocsin_operator.scaling.capacity import Capacity
from tocsin_operator.scaling.demand import Backlog
from tocsin_operator.scaling.model import Candidate, ChannelInputs, Config, Inputs, Observation, State
from tocsin_operator.scaling.partitions import Partitions


class Measured(NamedTuple):
    """What a trusted observation says. `backlog` is that of the channels pods are there for, `whole` that of all."""

    backlog: Backlog
    whole: Backlog
    channels: tuple[ChannelInputs, ...]
    partitions: Partitions
    busy: Busy | None
    finished_per_second: float | None
    arrival_per_second: float | None
    surge_per_second: float | None
    peak_per_second: float | None
    is_lag_falling: bool


class Situation:
    """One observation with what is remembered and asked for. `measured` is None while `doubt` is not empty."""

    def __init__(
        self,
        observation: Observation,
        state: State,
        config: Config,
        *,
        capacity: Capacity,
        doubt: str = "",
        measured: Measured | None = None,
    ) -> None:
        self.observation = observation
        self.state = state
        self.config = config
        self.capacity = capacity
        self.doubt = doubt
        self.measured = measured

    @property
    def current(self) -> int:
        """Return how many pods the Deployment asks for."""
        return self.observation.replicas.spec

    @property
    def is_starting(self) -> bool:
        """Return whether pods are coming, going, or not members of the group yet."""
        replicas, members = self.observation.replicas, self.observation.members
        return replicas.ready != replicas.spec or (members is not None and members < replicas.ready)

    @cached_property
    def partitions(self) -> int | None:
        """Return the topic's partitions, from this observation or the last trusted one."""
        return len(self.state.history[-1].ends) if self.state.history else None

    @cached_property
    def bounds(self) -> Bounds:
        """Return the allowed range."""
        may_rest = self.is_idle if self.measured is not None else self.current == 0
        return build_bounds(self.config, self.partitions, may_rest=may_rest)

    @property
    def is_idle(self) -> bool:
        """Return whether nothing waits, and nothing arrived in the down window as far as it was seen."""
        measured = self.measured
        return measured is not None and measured.whole.unsettled == 0 and not measured.peak_per_second

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Return the counts worth considering."""
        return list_counts(self.partitions, self.bounds) if self.partitions else ()

    @property
    def most(self) -> int:
        """Return the largest count that is allowed and of use."""
        return self.counts[-1] if self.counts else self.bounds.upper

    @cached_property
    def age(self) -> LagSeconds:
        """Return the lag in seconds that the number of pods can do something about."""
        return self.measured.backlog.age_of(self.measured.partitions.ordinary) if self.measured else CAUGHT_UP

    @cached_property
    def served_age(self) -> LagSeconds:
        """Return the lag in seconds of every partition that is not stuck."""
        if self.measured is None:
            return CAUGHT_UP
        partitions = self.measured.partitions
        return self.measured.backlog.age_of((*partitions.ordinary, *partitions.lonely))

    def build_load(self, per_second: float | None) -> Load | None:
        """Return the load at an arrival rate, None while capacity is unknown. An unknown rate adds nothing.

        It is the load of ordinary partitions: what the number of pods can do something about.
        """
        if self.measured is None or not self.partitions or not self.capacity.per_second:
            return None
        ordinary, shares = self.measured.partitions.ordinary, self.measured.partitions.shares
        lags = [self.measured.backlog.lags[index] for index in ordinary]
        rates = [(per_second or 0.0) * shares[index] for index in ordinary]
        return Load(
            per_second=sum(rates),
            backlog=sum(lags),
            capacity_per_second=self.capacity.per_second,
            partitions=self.partitions,
            sharing=len(ordinary),
            largest_per_second=max(rates, default=0.0),
            largest_backlog=max(lags, default=0),
        )

    @cached_property
    def load(self) -> Load | None:
        """Return the load now: what arrived of late, or what surely arrives since the last look if that is more."""
        if self.measured is None:
            return None
        return self.build_load(max(self.measured.arrival_per_second or 0.0, self.measured.surge_per_second or 0.0))

    @cached_property
    def startup_seconds(self) -> float:
        """Return how long new pods take until they work, as was seen, else as is assumed."""
        seen_seconds = self.state.startup_seconds
        return self.config.startup_seconds if seen_seconds is None else seen_seconds

    @cached_property
    def predicted_lag_seconds(self) -> float | None:
        """Return the lag in seconds that comes if the number of pods stays: what rule 7 holds against the promise.

        The newest record waits for the backlog before it; and while more arrives than is finished, the oldest ages.
        What arrived of late is trusted for as long as the promise; a surge only until pods that are bought one look
        later would work.
        """
        measured = self.measured
        if measured is None:
            return None
        age_seconds = self.age.seconds
        if self.load is None or self.current == 0:
            return age_seconds
        steady_seconds = self.config.max_lag_seconds + self.startup_seconds
        surge_seconds = self.startup_seconds + 2 * self.config.interval_seconds
        return max(
            measure_wait_seconds(self.current, self.load),
            age_seconds + self._measure_growth(measured.arrival_per_second) * steady_seconds,
            age_seconds + self._measure_growth(measured.surge_per_second) * surge_seconds,
        )

    def _measure_growth(self, per_second: float | None) -> float:
        """Return by how much the lag in seconds grows in a second at this arrival rate."""
        load = self.build_load(per_second)
        utilisation = measure_utilisation(self.current, load) if load else 0.0
        return 1 - 1 / utilisation if utilisation > 1 else 0.0

    @cached_property
    def now(self) -> Candidate | None:
        """Return what the present count means for the present load, None while capacity or pods are missing."""
        if self.load is None or self.current == 0:
            return None
        limit, drain = self.config.utilisation_up, self.config.drain_seconds
        return assess(self.current, self.load, utilisation_limit=limit, drain_limit_seconds=drain)

    @cached_property
    def ups(self) -> tuple[Candidate, ...]:
        """Return all counts as they would carry the present load with a scale-up's margin."""
        limit, drain = self.config.utilisation_up, self.config.drain_seconds
        return self._assess_all(self._await_pods(self.load), limit, drain)

    def _await_pods(self, load: Load | None) -> Load | None:
        """Return the load as new pods will find it: what nobody finishes meanwhile waits for them too.

        Only as far as it was seen how long they take: what is merely assumed buys nothing.
        """
        if load is None or self.state.startup_seconds is None:
            return load
        unfinished_per_second = max(0.0, load.per_second - self.current * load.capacity_per_second)
        return load._replace(backlog=load.backlog + int(unfinished_per_second * self.state.startup_seconds))

    @cached_property
    def downs(self) -> tuple[Candidate, ...]:
        """Return all counts as they would carry the window's peak with a scale-in's margin."""
        measured = self.measured
        peak = max(measured.peak_per_second or 0.0, measured.arrival_per_second or 0.0) if measured else None
        limit, drain = self.config.utilisation_down, self.config.drain_seconds
        return self._assess_all(self.build_load(peak), limit, drain)

    def _assess_all(self, load: Load | None, limit: float, drain_seconds: float) -> tuple[Candidate, ...]:
        if load is None:
            return ()
        return tuple(
            self._spare_lonely(assess(count, load, utilisation_limit=limit, drain_limit_seconds=drain_seconds), load)
            for count in self.counts
        )

    def _spare_lonely(self, candidate: Candidate, load: Load) -> Candidate:
        """Refuse a count that lets others share the pod of a partition that needs one of its own."""
        lonely = self.measured.partitions.lonely if self.measured else ()
        if candidate.refusal or not lonely or candidate.replicas == self.most:
            return candidate
        company = measure_company(candidate.replicas, load) if candidate.replicas > len(lonely) else 1.0
        if company <= self.config.company_share:
            return candidate
        refusal = f"partition {lonely[0]} needs a pod of its own, and others would take {company:.0%} of that"
        return msgspec.structs.replace(candidate, refusal=refusal)

    def build_inputs(self) -> Inputs:
        """Return the numbers of this situation, for status, metrics and whoever checks the decision."""
        replicas, measured = self.observation.replicas, self.measured
        backlog = measured.whole if measured else None
        return Inputs(
            replicas=replicas.spec,
            ready_replicas=replicas.ready,
            partitions=self.partitions,
            total_lag=backlog.total if backlog else None,
            max_partition_lag=backlog.largest if backlog else None,
            lag_seconds=backlog.age.seconds if backlog else None,
            is_lag_seconds_at_least=bool(backlog and backlog.age.is_at_least),
            predicted_lag_seconds=self.predicted_lag_seconds,
            arrival_per_second=measured.arrival_per_second if measured else None,
            surge_per_second=measured.surge_per_second if measured else None,
            peak_per_second=measured.peak_per_second if measured else None,
            capacity_per_second=self.capacity.per_second,
            capacity_source=self.capacity.source,
            busy_share=measured.busy.share if measured and measured.busy else None,
            throttled_share=measured.busy.throttled_share if measured and measured.busy else None,
            finished_per_second=measured.finished_per_second if measured else None,
            ceiling_per_second=self.state.ceiling.per_second if self.state.ceiling else None,
            stuck_partitions=measured.partitions.stuck if measured else (),
            hot_partitions=measured.partitions.hot if measured else (),
            behind_partitions=measured.partitions.behind if measured else (),
            channels=measured.channels if measured else (),
        )
