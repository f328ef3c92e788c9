"""What an attempt comes to: a wait, an end, or something decided that has yet to be done.

A dead letter, a move to a retry topic and the last farewell to the store can each meet a Kafka or a Redis that is away.
Then the delivery keeps what was decided and tries that again, and nothing is sent a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

from tocsin_consumer.dead_letters import Burial
from tocsin_core.retry import Tier
from tocsin_core.retry_record import Deferral


@dataclass(frozen=True, slots=True)
class Pause:
    """Try again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Postponement:
    """Go on from a retry topic."""

    tier: Tier
    deferral: Deferral


@dataclass(frozen=True, slots=True)
class Settled:
    """It has ended, and those that waited for it have yet to be let go."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing is left to do here."""


ENDED = Ended()
SETTLED = Settled()
Pending = Burial | Postponement | Settled
Step = Pause | Pending | Ended
