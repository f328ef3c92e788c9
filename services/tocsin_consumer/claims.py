"""At most one sender per (notification, channel, device), and a memory of what was sent: effect once.

    claim ──┬─ granted ──► send ──┬─ taken ──► mark done
            ├─ held: wait         └─ failed ─► release: forgotten, or in doubt if it may have been taken
            ├─ done: nothing to do
            └─ buried: nothing to do, until it is produced again

A claim lapses after a while, because its holder may be dead. A lapsed claim means that somebody began to send and never
said how it ended: the send is repeated (losing a notification would be worse), is *uncertain*, and is counted by the
store in the same step as the new claim, because a killed process forgets its counters.

A holder that knows it has not sent (the answer to its claim was lost, or it slept past the lease) asks again with the
same token and is in no doubt. After every send it takes a new token.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import ClassVar, NamedTuple, Protocol

from tocsin_core.errors import TocsinError

NO_PLACE = "-"


class ClaimsUnavailable(TocsinError):
    """The store does not answer or cannot be trusted, so nobody can tell what was sent."""

    retriable: ClassVar[bool] = True


class ClaimKey(NamedTuple):
    """What is sent at most once. A channel that needs no devices has one without a name."""

    notification_id: str
    channel: str
    device: str = ""


class Granted(NamedTuple):
    """Ours to send until `holds_until` on this process's monotonic clock.

    `is_uncertain` says that an earlier send may have arrived.
    """

    token: str
    is_uncertain: bool = False
    holds_until: float = math.inf


class Held(NamedTuple):
    """Not ours to send now; ask again after so many seconds."""

    again_in_seconds: float


class Done(NamedTuple):
    """It was sent before."""


class Buried(NamedTuple):
    """The very same record became a dead letter before."""


Claim = Granted | Held | Done | Buried


class Claims(Protocol):
    """The memory of what was sent."""

    @property
    def trouble(self) -> str:
        """Return why nothing can be claimed at the moment and what to do about it, or ""."""
        ...

    async def start(self) -> None:
        """Look at the store for the first time, and go on looking now and then. Never raises for the store's sake."""
        ...

    async def claim(
        self, key: ClaimKey, token: str, *, lease_seconds: float, accepted_at: datetime, place: str = NO_PLACE
    ) -> Claim:
        """Claim the right to send what the record at `place` in the pipeline's topic asks for.

        Raise ClaimsUnavailable if the store does not answer or cannot be trusted.
        """
        ...

    async def mark_done(self, key: ClaimKey) -> None:
        """Remember that it was sent. Raise ClaimsUnavailable if the store does not answer."""
        ...

    async def mark_buried(self, key: ClaimKey, *, place: str) -> None:
        """Remember that the record at `place` became a dead letter; one that is produced again may be sent.

        Raise ClaimsUnavailable if the store does not answer.
        """
        ...

    async def release(self, key: ClaimKey, token: str, *, is_uncertain: bool) -> None:
        """Let go of a claim that is still ours. Raise ClaimsUnavailable if the store does not answer."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class NoClaims:
    """No store: everything may be sent, nothing is remembered beyond the committed offsets."""

    trouble = ""

    async def start(self) -> None:
        """Nothing to look at."""

    async def claim(
        self, key: ClaimKey, token: str, *, lease_seconds: float, accepted_at: datetime, place: str = NO_PLACE
    ) -> Claim:
        """Grant."""
        del key, lease_seconds, accepted_at, place
        return Granted(token)

    async def mark_done(self, key: ClaimKey) -> None:
        """Forget."""

    async def mark_buried(self, key: ClaimKey, *, place: str) -> None:
        """Forget."""

    async def release(self, key: ClaimKey, token: str, *, is_uncertain: bool) -> None:
        """Forget."""

    async def close(self) -> None:
        """Nothing to let go of."""
