"""What a rule answers: a number with its reason, or nothing, and then the next rule is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tocsin_operator.scaling.model import Candidate, Hold, LimitedBy, Reason
from tocsin_operator.scaling.situation import Situation

NAMED_PARTITIONS = 5


class Verdict(NamedTuple):
    """One rule's answer; `candidates` are the counts it weighed."""

    replicas: int
    reason: Reason
    message: str
    limited_by: LimitedBy = LimitedBy.NONE
    candidates: tuple[Candidate, ...] = ()


Rule = Callable[[Situation], Verdict | None]


def choose(candidates: tuple[Candidate, ...]) -> Candidate | None:
    """Return the smallest candidate that nothing speaks against."""
    return next((candidate for candidate in candidates if not candidate.refusal), None)


def find(candidates: tuple[Candidate, ...], replicas: int) -> Candidate | None:
    """Return the candidate with this number of pods."""
    return next((candidate for candidate in candidates if candidate.replicas == replicas), None)


def count_pods(replicas: int) -> str:
    """Return `1 pod`, `2 pods`."""
    return f"{replicas} pod{'' if replicas == 1 else 's'}"


def name_partitions(partitions: Sequence[int]) -> str:
    """Return `partition 3`, `partitions 3, 7 and 9`, `partitions 3, 7, 9 and 4 more`."""
    if len(partitions) == 1:
        return f"partition {partitions[0]}"
    shown = [str(each) for each in partitions[:NAMED_PARTITIONS]]
    left = len(partitions) - len(shown)
    last = f"{left} more" if left else shown.pop()
    return f"partitions {', '.join(shown)} and {last}"


def show_lag(situation: Situation) -> str:
    """Return the backlog in records and seconds."""
    if situation.measured is None:
        return "lag unknown"
    backlog = situation.measured.whole
    bound = "at least " if backlog.age.is_at_least else ""
    stuck = situation.measured.partitions.stuck
    stand = "stands" if len(stuck) == 1 else "stand"
    apart = f"; {name_partitions(stuck)} {stand} still while others move, which no pod changes" if stuck else ""
    return f"{backlog.total} waiting, the oldest {bound}{backlog.age.seconds:.1f} s{_show_held(situation)}{apart}"


def _show_held(situation: Situation) -> str:
    """Return which channels are left out, and what waits for the others; nothing where none is."""
    measured = situation.measured
    held = [each for each in measured.channels if each.hold is not None] if measured else []
    if measured is None or not held:
        return ""
    whys = {hold: " and ".join(each.name for each in held if each.hold is hold) for hold in Hold}
    texts = {
        Hold.PROVIDER: f"held back by the provider: {whys[Hold.PROVIDER]}",
        Hold.STANDING_STILL: f"standing still while others move: {whys[Hold.STANDING_STILL]}",
    }
    told = "; ".join(text for hold, text in texts.items() if whys[hold])
    rest = f"{measured.backlog.total} waiting for the other channels, the oldest {measured.backlog.age.seconds:.1f} s"
    return f" (channels that no pod helps, {told}; {rest})"


def show_load(situation: Situation) -> str:
    """Return demand against capacity."""
    arrival = situation.measured.arrival_per_second if situation.measured else None
    arriving = "arrivals not measured yet" if arrival is None else f"{arrival:.1f}/s arrive"
    capacity = situation.capacity
    if capacity.per_second is None:
        return f"{arriving}, what a pod can do is not known yet"
    return f"{arriving}, one pod does {capacity.per_second:.1f}/s ({capacity.source.lower()})"
