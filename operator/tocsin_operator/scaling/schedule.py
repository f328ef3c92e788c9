"""When which key is due. Pure: the time is passed in.

Due times lie on a grid of the key's interval, so that pipelines with the same interval are asked about in the same
question to their cluster. A key that failed waits longer each time, and no longer than its promise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LONGEST_BACKOFF_SECONDS = 60.0
MOST_DOUBLINGS = 10


@dataclass(slots=True)
class Slot:
    """One key's place: when it is due, and how often in a row it failed."""

    due_seconds: float
    failures: int = 0


class Schedule:
    """The due times of all keys."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}

    def keep_only(self, keys: set[str]) -> None:
        """Forget every other key."""
        self._slots = {key: slot for key, slot in self._slots.items() if key in keys}

    def is_due(self, key: str, now_seconds: float) -> bool:
        """Return whether the key's time has come; a new key's has."""
        slot = self._slots.setdefault(key, Slot(now_seconds))
        return slot.due_seconds <= now_seconds

    def note_done(self, key: str, now_seconds: float, interval_seconds: float) -> None:
        """Set the key's next time to the next point of its grid."""
        self._slots[key] = Slot((math.floor(now_seconds / interval_seconds) + 1) * interval_seconds)

    def note_failed(self, key: str, now_seconds: float, interval_seconds: float, *, promise_seconds: float) -> None:
        """Set the key's next time further away after each failure in a row."""
        failures = self._slots.get(key, Slot(now_seconds)).failures
        longest_seconds = max(interval_seconds, min(LONGEST_BACKOFF_SECONDS, promise_seconds))
        delay_seconds = min(longest_seconds, interval_seconds * 2 ** min(failures, MOST_DOUBLINGS))
        self._slots[key] = Slot(now_seconds + delay_seconds, failures + 1)

    def seconds_until_next(self, now_seconds: float) -> float:
        """Return how long nothing is due, infinity without keys."""
        return max(0.0, min((slot.due_seconds for slot in self._slots.values()), default=math.inf) - now_seconds)
