"""How the receiving server answers: like a provider on a bad day, and yet the same way for the same seed. Pure.

The answer depends on the seed, the delivery and the number of the attempt alone, never on arrival order, so that a run
can be repeated. Shares are of attempts; what is left is an ordinary 200 after a short while.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import msgspec


class Manners(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one receiving server behaves. Shares lie between 0 and 1 and sum to at most 1."""

    seed: int = 0
    away: tuple[str, ...] = ()
    """The channels whose provider is down: it refuses everything with 503."""
    min_delay_seconds: float = 0.002
    max_delay_seconds: float = 0.02
    throttled: float = 0.0
    """Refused with 429 and a Retry-After."""
    failed: float = 0.0
    """Refused with 503."""
    dropped: float = 0.0
    """Taken, and then the connection is cut: the sender cannot know."""
    slow: float = 0.0
    """Taken, and answered only after `slow_seconds`."""
    refused: float = 0.0
    """Refused for good, with 422."""
    fail_first: int = 0
    """So many first attempts of every message are refused with 503."""
    retry_after_seconds: int = 1
    slow_seconds: float = 3.0


class Answer(NamedTuple):
    """What the server does: with a status of 0 it takes the message and cuts the connection."""

    status: int
    delay_seconds: float
    retry_after_seconds: int | None = None

    @property
    def is_taken(self) -> bool:
        """Return whether the server acts on the message."""
        return self.status in {0, 200}


def decide_answer(manners: Manners, message_id: str, channel: str, attempt: int) -> Answer:
    """Return what the server does with this attempt (counted from 1) of a message on a channel."""
    chance = random.Random(f"{manners.seed}/{message_id}/{channel}/{attempt}")
    delay_seconds = chance.uniform(manners.min_delay_seconds, manners.max_delay_seconds)
    if attempt <= manners.fail_first or channel in manners.away:
        return Answer(503, delay_seconds)
    answers = (
        (manners.throttled, Answer(429, delay_seconds, manners.retry_after_seconds)),
        (manners.failed, Answer(503, delay_seconds)),
        (manners.refused, Answer(422, delay_seconds)),
        (manners.dropped, Answer(0, delay_seconds)),
        (manners.slow, Answer(200, manners.slow_seconds)),
    )
    lot = chance.random()
    for share, answer in answers:
        if lot < share:
            return answer
        lot -= share
    return Answer(200, delay_seconds)
