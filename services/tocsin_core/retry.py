"""When to try again. Pure: the random number is passed in, so a test can say exactly what happens.

Exponential, because a provider in trouble needs room; with jitter over the upper half, because clients that failed
together must not come back together, and none should come back at once. tenacity and stamina were refused: they sleep
inside the call, which would hold a delivery slot while nothing is being delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_EXPONENT = 32


class Reason(StrEnum):
    """Why nothing more is tried: the values of the `dlq-reason` header that a failed send can cause."""

    PROVIDER_PERMANENT = "provider_permanent"
    RETRIES_EXHAUSTED = "retries_exhausted"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt, in seconds."""

    first_seconds: float = 0.5
    factor: float = 2.0
    max_seconds: float = 30.0
    max_retry_after_seconds: float = 300.0

    def delay_seconds(self, attempts: int, random: float) -> float:
        """Return the wait after `attempts` failures; `random` in [0, 1) picks it from the upper half of the step."""
        step = self.first_seconds * self.factor ** min(max(attempts - 1, 0), MAX_EXPONENT)
        return min(step, self.max_seconds) * (0.5 + random / 2)


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after so many seconds."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Try no more, and say why."""

    reason: Reason


def decide_retry(
    *,
    attempts: int,
    max_attempts: int,
    is_retriable: bool,
    retry_after_seconds: float | None,
    random: float,
    backoff: Backoff,
) -> Retry | GiveUp:
    """Decide what follows the failure of attempt number `attempts` (counted from 1).

    A provider's Retry-After wins over a shorter backoff and is bounded, so that no answer can park a lane for days.
    """
    if not is_retriable:
        return GiveUp(Reason.PROVIDER_PERMANENT)
    if attempts >= max_attempts:
        return GiveUp(Reason.RETRIES_EXHAUSTED)
    delay = backoff.delay_seconds(attempts, random)
    if retry_after_seconds is not None:
        delay = max(delay, min(retry_after_seconds, backoff.max_retry_after_seconds))
    return Retry(delay)
