"""What a channel is: the devices it sends to, one send, and the ways in which it can come to nothing.

A channel knows its provider and nothing else: no retries, no offsets, no dead letters. It says whether trying again
can help, whether the failure concerns this message alone or the whole channel, and whether the provider may have taken
the message all the same; what follows from that is decided once, for all channels, in `delivery` and `breaker`.

    SendFailed
    ├── TemporaryFailure     trying again can help (timeouts, 4yz, 429, 5xx)
    ├── PermanentFailure     it never will (no address, 5yz, other 4xx); carries the dead letter's reason
    ├── Postponed            not now, and not the notification's fault: it waits, which costs no attempt
    └── NobodyThere          there is nobody to send to: an end (suppressed), not an error
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, NamedTuple, Protocol

from tocsin_core.errors import TocsinError
from tocsin_core.message import Notification
from tocsin_core.users import Profile

ONE_DEVICE = ("",)
"""The devices of a channel that sends once per person: one that needs no name."""


class Envelope(NamedTuple):
    """What a channel is given: the notification, its recipient and their device, and where it comes from."""

    notification: Notification
    profile: Profile
    trace_id: str | None
    topic: str
    partition: int
    offset: int
    accepted_at: datetime
    device: str = ""


class SendFailed(TocsinError):
    """The provider did not take the message. The text is fit for logs and dead letters: no secrets, no addresses.

    `is_uncertain` says that the provider may have taken it without telling us.
    """

    retry_after_seconds: float | None = None
    is_uncertain: bool = False


class TemporaryFailure(SendFailed):
    """Trying again can help, after `retry_after_seconds` if the provider named a time.

    `is_of_channel` says that other messages would probably fail as well (nobody answers, 5xx); `is_throttled` that the
    provider wants fewer of them, whichever.
    """

    retriable: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        is_uncertain: bool = False,
        is_of_channel: bool = True,
        is_throttled: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.is_uncertain = is_uncertain
        self.is_of_channel = is_of_channel
        self.is_throttled = is_throttled


class PermanentFailure(SendFailed):
    """Trying again will never help."""

    def __init__(self, message: str, *, reason: str = "provider_permanent") -> None:
        super().__init__(message)
        self.reason = reason


class Postponed(SendFailed):
    """Nothing was taken because the way to the recipient is not there at present."""

    retriable: ClassVar[bool] = True

    def __init__(self, message: str, *, is_uncertain: bool = False) -> None:
        super().__init__(message)
        self.is_uncertain = is_uncertain


class NobodyThere(SendFailed):
    """Nothing was sent because there is nobody to send to, for certain."""


class Channel(Protocol):
    """One named way to a person."""

    @property
    def name(self) -> str:
        """Return the channel's name in the pipeline."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """Return how long one send may take."""
        ...

    @property
    def repeats_are_harmless(self) -> bool:
        """Return whether whoever receives it twice sees it once, or does not mind. Then it needs no claim to go on."""
        ...

    def devices(self, profile: Profile) -> Sequence[str]:
        """Return the names of the devices it sends to, each of them once; none if the person has none.

        Raise PermanentFailure if that is a mistake in the profile.
        """
        ...

    async def send(self, envelope: Envelope) -> None:
        """Hand the notification for one device to the provider; return when the provider has taken it.

        Raise SendFailed if it has not.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
