"""From receipts to percentiles. Pure.

What had not arrived when the run was cut short counts as arriving at that moment: a percentile that rests on it is too
small, never too large, and `is_complete` says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

FAR = 0.99
Receipts = Sequence[tuple[str, float]]
"""webhook-id and moment, in the order they came."""


@dataclass(frozen=True)
class Drained:
    """How long the undisturbed channels' notifications took, in seconds at the 99th percentile.

    `backlog` counts from the first delivery of the run; `fresh` from the moment each was meant to be sent, while the
    backlog was drained and after; `after` are those of them that were meant for later than the undisturbed channels
    had caught up (None where they never did).
    """

    backlog: float
    fresh: float
    after: float | None
    undelivered: int
    duplicates: int

    @property
    def is_complete(self) -> bool:
        """Return whether everything arrived before the run was cut short."""
        return self.undelivered == 0


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed. Raise ValueError without any."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values, no percentile")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summarise(
    receipts: Mapping[str, Receipts],
    *,
    backlog: Sequence[str],
    fresh: Mapping[str, float],
    caught_up: float | None,
    ended: float,
) -> Drained:
    """Return the percentiles over all channels of `receipts`. `fresh` maps ids to the moment they were meant for."""
    arrivals = {channel: _first_arrivals(channel, each) for channel, each in receipts.items()}
    began = min((moment for each in receipts.values() for _, moment in each), default=ended)
    old = [each.get(number, ended) - began for each in arrivals.values() for number in backlog]
    new = [(meant, each.get(number, ended) - meant) for each in arrivals.values() for number, meant in fresh.items()]
    wanted = len(arrivals) * (len(backlog) + len(fresh))
    arrived = sum(len(each) for each in arrivals.values())
    after = [waited for meant, waited in new if caught_up is not None and meant >= caught_up]
    return Drained(
        backlog=percentile(old, FAR),
        fresh=percentile((waited for _, waited in new), FAR),
        after=percentile(after, FAR) if after else None,
        undelivered=wanted - arrived,
        duplicates=sum(len(each) for each in receipts.values()) - arrived,
    )


def _first_arrivals(channel: str, receipts: Receipts) -> dict[str, float]:
    arrivals: dict[str, float] = {}
    for webhook_id, moment in receipts:
        arrivals.setdefault(webhook_id.removesuffix(f"_{channel}"), moment)
    return arrivals
