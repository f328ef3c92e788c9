"""The channel `WebSocket`: a frame on every connection that a person has open, through the hub.

Delivered means that the socket of at least one live connection took the frame; it does not mean that somebody looked.
Nobody connected is an end, not an error. The frame carries the notification's id, by which clients drop repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from tocsin_consumer.channels.base import ONE_DEVICE, Envelope, NobodyThere, Postponed, TemporaryFailure
from tocsin_consumer.hub import HubClient, HubUnavailable
from tocsin_core.hub import Verdict
from tocsin_core.users import Profile

AGAIN_AFTER_STALL_SECONDS = 1.0

_encode = msgspec.json.Encoder().encode


class Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a client reads: `{id, fromID, toID, message, title?, data?, channel, acceptedAt}`."""

    id: str
    from_id: str = msgspec.field(name="fromID")
    to_id: str = msgspec.field(name="toID")
    message: str
    title: str | None = None
    data: dict[str, Any] | None = None
    channel: str
    accepted_at: datetime


class WebSocketChannel:
    """Sends notifications to open connections."""

    repeats_are_harmless = True
    timeout_seconds = 10.0
    """Above what the hub takes at worst: a store that is slow to connect, then pods that are slow to answer."""

    def __init__(self, name: str, hub: HubClient) -> None:
        self.name = name
        self._hub = hub

    def devices(self, _: Profile) -> Sequence[str]:
        """Return the one nameless device: which connections there are is the hub's to know."""
        return ONE_DEVICE

    async def send(self, envelope: Envelope) -> None:
        """Return when a socket has taken the frame. Raise SendFailed saying why none did."""
        frame = build_frame(envelope, channel=self.name)
        try:
            verdict = await self._hub.send(envelope.notification.to_id, frame)
        except HubUnavailable as error:
            raise Postponed(str(error), is_uncertain=error.is_uncertain) from error
        check_verdict(verdict)

    async def close(self) -> None:
        """Close the connections to the hub."""
        await self._hub.close()


def build_frame(envelope: Envelope, *, channel: str) -> bytes:
    """Return the JSON text of a notification's frame: the same bytes for every attempt."""
    notification = envelope.notification
    return _encode(
        Frame(
            id=notification.id,
            from_id=notification.from_id,
            to_id=notification.to_id,
            message=notification.message,
            title=notification.title,
            data=notification.data,
            channel=channel,
            accepted_at=envelope.accepted_at,
        )
    )


def check_verdict(verdict: Verdict) -> None:
    """Return if a socket took the frame. Raise what the verdict means otherwise."""
    match verdict:
        case Verdict.DELIVERED:
            return
        case Verdict.NOBODY:
            raise NobodyThere("nobody connected")
        case Verdict.MOVING:
            raise Postponed("the recipient's connections are moving to another ingestion pod")
        case Verdict.UNSURE:
            raise Postponed("nobody knows yet who is connected: the registry is new, or no ingestion pod keeps it")
        case Verdict.STALLED:
            raise TemporaryFailure(
                "the recipient's socket takes nothing at present",
                retry_after_seconds=AGAIN_AFTER_STALL_SECONDS,
                is_uncertain=True,
                is_of_channel=False,
            )
        case Verdict.UNANSWERED:
            raise TemporaryFailure("no answer from the ingestion pod that holds the connection", is_uncertain=True)
