"""What a scaling decision is made of: what was seen, what is remembered, what was asked for, what came out.

All four are frozen and become small JSON (`msgspec.json`), so that a decision can be recorded, replayed and explained
anywhere. Time is a number in the observation; nothing in this package reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

from tocsin_core.lag import EndOffsets, PartitionOffsets


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all values here: frozen, comparable, serialisable."""


CapacitySource = Literal["Measured", "Hint", "Observed", "Unknown"]


class Reason(StrEnum):
    """Why the number is what it is: the reason of the condition, of the event and of the metric."""

    SUSPENDED = "Suspended"
    MANUAL = "Manual"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    OUTSIDE_BOUNDS = "OutsideBounds"
    CONSUMERS_NOT_READY = "ConsumersNotReady"
    DEMAND_EXCEEDS_CAPACITY = "DemandExceedsCapacity"
    BACKLOG_TOO_LARGE = "BacklogTooLarge"
    LAG_GROWING = "LagGrowing"
    LEARNING = "Learning"
    DRAINING = "Draining"
    AT_LIMIT = "AtLimit"
    NOTHING_FINISHES = "NothingFinishes"
    DOWNSTREAM_BOUND = "DownstreamBound"
    PARTITION_HOT = "PartitionHot"
    FITS_IN_FEWER = "FitsInFewer"
    PROBING = "Probing"
    WAITING_TO_SCALE_IN = "WaitingToScaleIn"
    WITHIN_PROMISE = "WithinPromise"
    IDLE = "Idle"


class LimitedBy(StrEnum):
    """What kept the number from being another one."""

    NONE = "None"
    MIN_REPLICAS = "MinReplicas"
    MAX_REPLICAS = "MaxReplicas"
    PARTITIONS = "Partitions"
    COOLDOWN = "Cooldown"
    DOWN_WINDOW = "DownWindow"
    STARTING = "Starting"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    CAPACITY_UNKNOWN = "CapacityUnknown"
    DOWNSTREAM = "Downstream"
    HOT_PARTITION = "HotPartition"
    ADVISORY = "Advisory"
    SCALE_UP_ONLY = "ScaleUpOnly"
    MANUAL = "Manual"
    SUSPENDED = "Suspended"


class Replicas(Value, frozen=True):
    """The Deployment: how many pods it asks for and how many are ready."""

    spec: int
    ready: int


class ConsumerCounters(Value, frozen=True):
    """One pod's counters since it started, and what it is doing. CPU seconds are None where the pod does not say.

    `held_seconds` is how long each channel's provider has held back work that waited.
    """

    pod: str
    processed_total: float
    busy_slot_seconds_total: float
    concurrency: float
    throttled_seconds_total: float = 0.0
    cpu_seconds_total: float | None = None
    in_flight: float = 0.0
    held_seconds: dict[str, float] = {}


class Quality(Value, frozen=True):
    """How good an answer of Kafka's is: all of it, and how old. `detail` says what is missing."""

    is_complete: bool = True
    age_seconds: float = 0.0
    detail: str = ""


class Observation(Value, frozen=True):
    """One look at a pipeline. `members` and `consumers` are None where nobody asked."""

    time_seconds: float
    partitions: tuple[PartitionOffsets, ...]
    replicas: Replicas
    members: int | None = None
    consumers: tuple[ConsumerCounters, ...] | None = None
    quality: Quality = Quality()


class Config(Value, frozen=True):
    """What the pipeline's owner asks for, and the constants of the rules, with their units."""

    mode: Literal["Auto", "Advisory", "Manual", "ScaleUpOnly"] = "Auto"
    is_suspended: bool = False
    manual_replicas: int = 1
    min_replicas: int = 1
    max_replicas: int = 12
    max_lag_seconds: float = 60.0
    interval_seconds: float = 5.0
    cooldown_seconds: float = 120.0
    down_window_seconds: float = 300.0
    capacity_per_second: float | None = None
    on_metrics_unavailable: Literal["Hold", "ScaleToMin", "ScaleToMax"] = "Hold"
    channels: tuple[str, ...] = ()
    # How long a pod takes until it works, until that was seen: the reach of the look ahead, and how long a scale-up
    # is left alone.
    startup_seconds: float = 15.0
    # How long missing data only freezes before on_metrics_unavailable applies.
    metrics_grace_seconds: float = 60.0
    utilisation_up: float = 0.85
    utilisation_down: float = 0.70
    # A partition without progress for so long, while others have some, waits for something that no pod brings.
    stuck_seconds: float = 60.0
    # What the partitions that share a pod with one that needs a pod of its own may take of it.
    company_share: float = 0.10
    # How long after a scale-up's pods are ready its effect is looked at, and how much of the promised rise must show.
    effect_seconds: float = 30.0
    effect_share: float = 0.25
    # How long a ceiling of the downstream is believed before the next step probes it; doubled each time it stands.
    ceiling_seconds: float = 300.0
    longest_ceiling_seconds: float = 3_600.0
    # The share of the pods' time in which providers hold them back, above which more pods only wait as well.
    throttled_share: float = 0.50
    # Below this share a provider that held a channel back has let go of it.
    released_share: float = 0.05

    @property
    def is_sized(self) -> bool:
        """Return whether the rules work on a number at all, to set it or to advise it."""
        return self.mode != "Manual" and not self.is_suspended

    @property
    def drain_seconds(self) -> float:
        """Return how long a backlog may take to drain: twice the promise."""
        return 2 * self.max_lag_seconds

    @property
    def quiet_seconds(self) -> float:
        """Return the lag that counts as keeping up: a quarter of the promise, but no finer than two looks can see."""
        return min(self.max_lag_seconds, max(self.max_lag_seconds / 4, 2 * self.interval_seconds))

    @property
    def count_seconds(self) -> float:
        """Return how often pods' counters are worth reading: what a pod can do changes slowly."""
        return min(15.0, max(self.interval_seconds, self.max_lag_seconds / 4))

    @property
    def recent_seconds(self) -> float:
        """Return the span of the mean arrival rate: long enough for three looks, short against the promise."""
        return max(3 * self.interval_seconds, min(self.max_lag_seconds / 4, 30.0))

    @property
    def gap_seconds(self) -> float:
        """Return the silence after which an answer is stale, and after which the down window starts again."""
        return max(3 * self.interval_seconds, 10.0)

    @property
    def channel_seconds(self) -> float:
        """Return how long a channel may stand still while others move: less than what would buy pods for it."""
        return min(self.stuck_seconds, max(self.max_lag_seconds / 2, self.gap_seconds))

    @property
    def horizon_seconds(self) -> float:
        """Return how far back end offsets are kept: beyond any lag that rules have to tell apart."""
        return max(4 * self.max_lag_seconds, 2 * self.recent_seconds, 75.0)


class Peak(Value, frozen=True):
    """The highest arrival rate of one slice of the down window."""

    start_seconds: float
    per_second: float


class Run(Value, frozen=True):
    """An unbroken time in which every pod had more to do than it could: how it began, and what was finished last.

    `start_age_seconds` is None where the lag in seconds was only known to be at least something.
    """

    start_seconds: float
    start_age_seconds: float | None
    start_backlog: int
    start_finished: int
    finished: int
    replicas: int


class CapacityWindow(Value, frozen=True):
    """What one pod finished per second during such a time."""

    start_seconds: float
    span_seconds: float
    per_second: float


class Work(Value, frozen=True):
    """What all readable pods did between two looks: pod-seconds that passed, and those spent busy or held back.

    `is_partial` where one channel of several was held back: what was processed on all of them is then only its.
    """

    time_seconds: float
    pod_seconds: float
    busy_seconds: float
    throttled_seconds: float
    processed: float
    held_seconds: dict[str, float] = {}
    is_partial: bool = False


class Finished(Value, frozen=True):
    """How much the group had finished at one time, summed over partitions."""

    time_seconds: float
    records: int


class Hold(StrEnum):
    """What a channel waits for that no pod brings."""

    PROVIDER = "Provider"
    STANDING_STILL = "StandingStill"


class ChannelProgress(Value, frozen=True):
    """How much one channel had finished, summed over partitions, since when it stands still, and what holds it back.

    `position` is None where only an earlier process saw it.
    """

    name: str
    position: int | None = None
    moved_seconds: float | None = None
    stalled_since: float | None = None
    hold: Hold | None = None


class Effect(Value, frozen=True):
    """A scale-up whose effect is still to be seen, and what the group finished per second before it."""

    start_seconds: float
    replicas_before: int
    replicas_after: int
    finished_per_second: float
    ready_seconds: float | None = None


class Ceiling(Value, frozen=True):
    """What the downstream takes, whoever sends: more pods than `replicas` did not raise it. Probed from `until`."""

    per_second: float
    replicas: int
    hold_seconds: float
    until_seconds: float


class State(Value, frozen=True):
    """What one decision leaves to the next. Capacity, the last action and a ceiling have to survive a restart."""

    history: tuple[EndOffsets, ...] = ()
    positions: tuple[int, ...] = ()
    settled: tuple[int, ...] = ()
    channels: tuple[ChannelProgress, ...] = ()
    backlogs: tuple[int, ...] = ()
    peaks: tuple[Peak, ...] = ()
    observed_since_seconds: float | None = None
    stalled_since: tuple[float | None, ...] = ()
    stirred_seconds: tuple[float | None, ...] = ()
    progressed_seconds: float | None = None
    finished: tuple[Finished, ...] = ()
    counters: tuple[ConsumerCounters, ...] = ()
    counted_seconds: float | None = None
    work: tuple[Work, ...] = ()
    measured_per_second: float | None = None
    nominal_per_second: float | None = None
    run: Run | None = None
    windows: tuple[CapacityWindow, ...] = ()
    replicas: int | None = None
    last_scale_seconds: float | None = None
    last_scale_up_seconds: float | None = None
    frozen_since_seconds: float | None = None
    contradicted_since_seconds: float | None = None
    startup_seconds: float | None = None
    awaited_since_seconds: float | None = None
    effect: Effect | None = None
    ceiling: Ceiling | None = None

    @property
    def held_channels(self) -> frozenset[str]:
        """Return the channels that are held back."""
        return _name_held(self.channels)


class Candidate(Value, frozen=True):
    """One count that was considered; `refusal` says why it was not enough, and is empty where it was."""

    replicas: int
    utilisation: float | None
    drain_seconds: float | None
    refusal: str


class ChannelInputs(Value, frozen=True):
    """How far one channel is behind; `hold` is what holds it back, and None for one that the number of pods is for."""

    name: str
    lag: int
    lag_seconds: float
    is_lag_seconds_at_least: bool = False
    hold: Hold | None = None


class Inputs(Value, frozen=True):
    """The numbers a decision was made from. None is unknown, not zero. Lag is the slowest channel's."""

    replicas: int
    ready_replicas: int
    partitions: int | None = None
    total_lag: int | None = None
    max_partition_lag: int | None = None
    lag_seconds: float | None = None
    is_lag_seconds_at_least: bool = False
    predicted_lag_seconds: float | None = None
    arrival_per_second: float | None = None
    surge_per_second: float | None = None
    peak_per_second: float | None = None
    capacity_per_second: float | None = None
    capacity_source: CapacitySource = "Unknown"
    busy_share: float | None = None
    throttled_share: float | None = None
    finished_per_second: float | None = None
    ceiling_per_second: float | None = None
    stuck_partitions: tuple[int, ...] = ()
    hot_partitions: tuple[int, ...] = ()
    behind_partitions: tuple[int, ...] = ()
    channels: tuple[ChannelInputs, ...] = ()

    @property
    def held_channels(self) -> frozenset[str]:
        """Return the channels that are held back, and that no pod is bought for."""
        return _name_held(self.channels)


def _name_held(channels: Iterable[ChannelProgress | ChannelInputs]) -> frozenset[str]:
    return frozenset(each.name for each in channels if each.hold is not None)


class Decision(Value, frozen=True):
    """How many pods, why, what limited the number, and everything needed to check it by hand.

    `advised_replicas` is what mode Advisory would have set.
    """

    replicas: int
    reason: Reason
    message: str
    limited_by: LimitedBy
    inputs: Inputs
    candidates: tuple[Candidate, ...] = ()
    drain_seconds: float | None = None
    is_trusted: bool = True
    advised_replicas: int | None = None

    @property
    def is_action(self) -> bool:
        """Return whether the number differs from what the Deployment asks for."""
        return self.replicas != self.inputs.replicas
