"""When to try again, and where to wait meanwhile. Pure: the random number is passed in, so a test can say what happens.

    attempts 1, 2: in the lane, within a second      3: .retry.10s      4: .retry.1m      5 and on: .retry.10m

A hiccup is over within the quick tries, and nobody behind them notices. What lasts longer must not hold up the lane,
nor the offsets of its partition: the record moves to a retry topic. Each of these *tiers* has one fixed delay, so the
record at the head of a partition is always the next one due, and nothing has to be sorted or searched. Three tiers,
because two quick tries and one in each are the default five attempts: a blip (10 s), a restart (1 min), and what
somebody has to mend, a greylisting mail server among it (10 min). The tiers are shared by all channels; topics per
channel would multiply partitions for records that should be rare, and a channel that is down is not retried but paused
(`tocsin_core.breaker`).

Within the lane the wait is exponential, because a provider in trouble needs room, with jitter over the upper half,
because clients that failed together must not come back together. tenacity and stamina were refused: they sleep inside
the call, which would hold a delivery slot while nothing is being delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

MAX_EXPONENT = 32
QUICK_ATTEMPTS = 2
"""How many sends are made from the lane before a delivery moves to a retry topic."""
QUICK_RETRY_AFTER_SECONDS = 1.0
"""Up to so long a provider's Retry-After is waited for in the lane."""
RETRY_DELAYS_SECONDS = (10, 60, 600)
LOOK_SECONDS = (0.2, 1.0)
"""How soon, and how late, a delivery that waits for another looks again."""
UNITS = ((3600, "h"), (60, "m"), (1, "s"))


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


class Tier(NamedTuple):
    """A retry topic and its delay."""

    topic: str
    delay_seconds: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after so many seconds, in the lane."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class Defer:
    """Try again from a retry topic."""

    tier: Tier


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Try no more, and say why."""

    reason: Reason


def name_retry_topic(topic: str, delay_seconds: int) -> str:
    """Return the name of a topic's retry topic: `orders.retry.10s`, `orders.retry.1m`."""
    size, unit = next(each for each in UNITS if delay_seconds % each[0] == 0)
    return f"{topic}.retry.{delay_seconds // size}{unit}"


def build_tiers(topic: str, delays_seconds: Iterable[int] = RETRY_DELAYS_SECONDS) -> tuple[Tier, ...]:
    """Return the retry topics of a topic, the shortest delay first. Operator and services both derive them here."""
    return tuple(Tier(name_retry_topic(topic, delay), delay) for delay in sorted(set(delays_seconds)))


def choose_tier(tiers: Sequence[Tier], *, at_least_seconds: float) -> Tier:
    """Return the first tier whose delay is long enough, else the longest: no answer parks anything for days."""
    return next((tier for tier in tiers if tier.delay_seconds >= at_least_seconds), tiers[-1])


def decide_retry(
    *,
    attempts: int,
    max_attempts: int,
    is_retriable: bool,
    retry_after_seconds: float | None,
    random: float,
    backoff: Backoff,
    tiers: Sequence[Tier] = (),
) -> Retry | Defer | GiveUp:
    """Decide what follows the failure of attempt number `attempts` (counted from 1).

    A provider's Retry-After wins over a shorter delay, and is bounded. Without tiers (their topics are missing) every
    attempt is made from the lane.
    """
    if not is_retriable:
        return GiveUp(Reason.PROVIDER_PERMANENT)
    if attempts >= max_attempts:
        return GiveUp(Reason.RETRIES_EXHAUSTED)
    wished_seconds = retry_after_seconds or 0.0
    if tiers and (attempts >= QUICK_ATTEMPTS or wished_seconds > QUICK_RETRY_AFTER_SECONDS):
        due = tiers[min(max(attempts - QUICK_ATTEMPTS, 0), len(tiers) - 1) :]
        return Defer(choose_tier(due, at_least_seconds=wished_seconds))
    delay = backoff.delay_seconds(attempts, random)
    return Retry(max(delay, min(wished_seconds, backoff.max_retry_after_seconds)))


def decide_follow(*, due_in_seconds: float, waited_seconds: float, tiers: Sequence[Tier]) -> Retry | Defer:
    """Decide how a delivery that must not overtake waits for the one before it, which is due in so many seconds.

    In the lane if that takes no longer than the shortest tier would, or those that follow would arrive in a tier as
    fast as others leave it, and a busy recipient would be late for ever. Otherwise in the longest tier that is over by
    then.
    """
    if not tiers or waited_seconds + due_in_seconds <= tiers[0].delay_seconds:
        soonest, latest = LOOK_SECONDS
        return Retry(min(max(due_in_seconds, soonest), latest))
    return Defer([tiers[0], *(tier for tier in tiers if tier.delay_seconds <= due_in_seconds)][-1])
