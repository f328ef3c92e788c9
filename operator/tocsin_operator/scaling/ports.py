"""What the scaling loop needs from the world, and nothing more.

The operator plugs Kubernetes in here, `tocsin dev` plugs processes in, and tests plug a plant and a clock in: the
loop and the decision are the same in all three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tocsin_core.errors import TocsinError
from tocsin_core.lag import PartitionOffsets
from tocsin_operator.scaling.model import Config, ConsumerCounters, Decision, Observation, Replicas, State

NOTHING_REMEMBERED = State()


class ScaleConflict(TocsinError):
    """What the decision was made on changed before it could be written: observe and decide again."""

    retriable = True


@dataclass(frozen=True, slots=True)
class Target:
    """One pipeline to scale. `cluster` names the Kafka connection: targets that share it are asked about at once.

    `restored` is what an earlier process remembered; the loop uses it the first time it sees this `uid`.
    """

    key: str
    uid: str
    cluster: str
    group: str
    topic: str
    config: Config
    restored: State = NOTHING_REMEMBERED


class Seen(NamedTuple):
    """A target's replicas, and the version of the object they were read from."""

    replicas: Replicas
    version: str = ""


Answer = tuple[PartitionOffsets, ...] | TocsinError


@dataclass(frozen=True, slots=True)
class Report:
    """All that one pass found out about a target; published every time, whatever happened.

    `decision` is None where the replicas could not be read; `kafka_failure` and `failure` say what went wrong with
    Kafka and with everything else; `has_acted` says that the decision was written.
    """

    target: Target
    time_seconds: float
    observation: Observation | None = None
    decision: Decision | None = None
    state: State | None = None
    kafka_failure: TocsinError | None = None
    failure: Exception | None = None
    has_acted: bool = False


class Observer(Protocol):
    """Reads the world."""

    def list_targets(self) -> Iterable[Target]:
        """Return all pipelines there are now, suspended and manual ones too."""
        ...

    async def observe_groups(self, cluster: str, targets: Sequence[Target]) -> Mapping[str, Answer]:
        """Return the offsets of each target, by key, with as few questions to the cluster as possible.

        A failure of one target is its answer; raise TocsinError only for what concerns all of them.
        """
        ...

    async def observe_replicas(self, target: Target) -> Seen | None:
        """Return what the target runs, None where it does not exist (yet)."""
        ...

    async def observe_consumers(self, target: Target) -> tuple[ConsumerCounters, ...] | None:
        """Return the counters of the target's consumers that can be read, None out of turn. Never fail."""
        ...


class Actor(Protocol):
    """Writes the one number that the loop is there for."""

    async def apply_scale(self, target: Target, replicas: int, version: str) -> None:
        """Set the replicas. Raise ScaleConflict if the target is not at `version` any more."""
        ...


class Publisher(Protocol):
    """Tells people."""

    async def publish(self, report: Report) -> None:
        """Take note of one pass over one target."""
        ...


class Clock(Protocol):
    """The only time there is for the loop."""

    def now_seconds(self) -> float:
        """Return seconds since the epoch; must not go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        ...
