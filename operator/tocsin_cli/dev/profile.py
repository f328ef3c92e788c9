"""How many notifications should have been sent by when. Pure: the clock is an argument.

An open-loop profile: a slow pipeline does not slow its load down, or the load would hide what it is there to show.
"""

from __future__ import annotations

from typing import NamedTuple

LOW_SHARE = 0.2
"""The low phases of the demo run at this share of the peak."""


class Step(NamedTuple):
    """A while at one rate."""

    seconds: float
    per_second: float


class Profile(NamedTuple):
    """Steps, one after another; after the last nothing more is due."""

    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """Return how long the whole profile takes."""
        return sum(step.seconds for step in self.steps)

    @property
    def total(self) -> int:
        """Return how many notifications the whole profile sends."""
        return self.due(self.seconds)

    def due(self, elapsed_seconds: float) -> int:
        """Return how many notifications should have been sent `elapsed_seconds` after the start."""
        due, left = 0.0, elapsed_seconds
        for step in self.steps:
            due += step.per_second * min(max(left, 0.0), step.seconds)
            left -= step.seconds
        return int(due + 1e-9)  # 0.2 * 300 * 12.0 must be 720, not 719

    def per_second(self, elapsed_seconds: float) -> float:
        """Return the rate asked for at `elapsed_seconds` after the start."""
        left = elapsed_seconds
        for step in self.steps:
            if left < step.seconds:
                return step.per_second
            left -= step.seconds
        return 0.0


def build_steady_profile(seconds: float, per_second: float) -> Profile:
    """Return one rate for a while."""
    return Profile((Step(seconds, per_second),))


def build_demo_profile(seconds: float, peak_per_second: float) -> Profile:
    """Return the demo's load: a fifth of the time low, half at the peak, the rest low."""
    low = peak_per_second * LOW_SHARE
    return Profile((Step(seconds * 0.2, low), Step(seconds * 0.5, peak_per_second), Step(seconds * 0.3, low)))
