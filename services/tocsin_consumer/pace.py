"""How much may be under way, so that a hand-over can finish in its time. Pure.

On revoke, everything below the highest started record of each channel must be finished. What that may cost is known
beforehand: the deliveries of one lane run one after the other, a channel's lanes together run at least as many at a
time as the slots guarantee it, and a delivery takes as long as deliveries took lately. So the depth of a lane and the
gap of a cursor are capped at what fits into half of the budget; the other half is for what nobody foresaw.
"""

from __future__ import annotations

from collections.abc import Mapping

SMOOTHING = 0.1
FIRST_GUESS_SECONDS = 0.05
SAFETY = 0.5


class Pace:
    """Learns how long deliveries take, and says how many may be under way."""

    def __init__(self, guaranteed_slots: Mapping[str, int], *, budget_seconds: float, max_gap: int) -> None:
        self._seconds = dict.fromkeys(guaranteed_slots, FIRST_GUESS_SECONDS)
        self._guaranteed_slots = guaranteed_slots
        self._budget_seconds = budget_seconds * SAFETY
        self._max_gap = max_gap

    def observe(self, channel: str, seconds: float) -> None:
        """Take note of how long a delivery took, retries and their waits included."""
        if channel in self._seconds:
            self._seconds[channel] += SMOOTHING * (seconds - self._seconds[channel])

    def lane_limit(self, channel: str) -> int:
        """Return how many deliveries one lane of this channel may hold: at least one."""
        return self._at_least_one(self._budget_seconds / self._seconds[channel])

    def gap_limit(self, channel: str, partitions: int) -> int:
        """Return how many records a channel may have admitted and not finished in each of so many partitions."""
        fitting = max(1, self._guaranteed_slots[channel]) * self._budget_seconds / self._seconds[channel]
        return self._at_least_one(fitting / max(1, partitions))

    def _at_least_one(self, number: float) -> int:
        return max(1, min(int(number), self._max_gap))
