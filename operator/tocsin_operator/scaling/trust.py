"""Rule 1: do not act on an answer that cannot be true.

Kafka's answers are sometimes partial (a broker restarts, metadata is old), and most scalers read a missing partition
as one without lag and scale in. Here a doubt freezes the decision. Doubts are of two kinds: an answer that is broken
in itself is never used; one that contradicts the last answer (a log's end or a commit went back, partitions vanished)
is believed once it stays, because topics are made anew and offsets are reset by hand.
"""

from __future__ import annotations

from typing import NamedTuple

from tocsin_operator.scaling.model import Config, Observation, State


class Doubt(NamedTuple):
    """Why an observation is not trusted; a contradiction may turn out to be the new truth."""

    message: str
    is_contradiction: bool


def find_doubt(observation: Observation, state: State, config: Config) -> Doubt | None:
    """Return why the observation is not to be acted on, or None."""
    broken = _find_incomplete(observation, config) or _find_impossible(observation)
    if broken:
        return Doubt(broken, is_contradiction=False)
    contradiction = _find_contradiction(observation, state)
    return Doubt(contradiction, is_contradiction=True) if contradiction else None


def is_confirmed(observation: Observation, state: State, config: Config) -> bool:
    """Return whether a contradiction has stayed long enough to be believed."""
    since_seconds = state.contradicted_since_seconds
    return since_seconds is not None and observation.time_seconds - since_seconds >= config.gap_seconds


def _find_incomplete(observation: Observation, config: Config) -> str:
    quality = observation.quality
    if not quality.is_complete:
        return quality.detail or "Kafka's answer is incomplete"
    if quality.age_seconds > config.gap_seconds:
        return f"Kafka's last answer is {quality.age_seconds:.0f} s old"
    if not observation.partitions:
        return "Kafka reports no partition of the topic"
    known = {offsets.partition for offsets in observation.partitions}
    missing = sorted(set(range(max(known) + 1)) - known)
    if missing or len(known) != len(observation.partitions):
        return f"Kafka's answer names {_name_partitions(missing)} not exactly once"
    return ""


def _name_partitions(partitions: list[int]) -> str:
    return f"partition {partitions[0]}" if partitions else "some partition"


def _find_impossible(observation: Observation) -> str:
    for offsets in observation.partitions:
        is_negative = offsets.log_start < 0 or (offsets.committed is not None and offsets.committed < 0)
        if is_negative or offsets.log_end < offsets.log_start:
            return f"partition {offsets.partition} reports impossible offsets: {_show(offsets)}"
    return ""


def _show(offsets: object) -> str:
    return ", ".join(f"{name} {getattr(offsets, name)}" for name in ("log_start", "log_end", "committed"))


def _find_contradiction(observation: Observation, state: State) -> str:
    if not state.history:
        return ""
    last = state.history[-1]
    if observation.time_seconds <= last.time_seconds:
        return "the clock went back"
    if len(observation.partitions) < len(last.ends):
        return f"the topic had {len(last.ends)} partitions and now shows {len(observation.partitions)}"
    ordered = sorted(observation.partitions, key=lambda offsets: offsets.partition)
    for offsets, end, position in zip(ordered, last.ends, state.positions, strict=False):
        if offsets.log_end < end:
            return f"partition {offsets.partition}'s end went back from {end} to {offsets.log_end}"
        if offsets.position < position:
            return f"partition {offsets.partition}'s commit went back from {position} to {offsets.position}"
    return ""
