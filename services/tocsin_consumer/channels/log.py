"""The channel `Log`: one line per notification. The line is the receipt."""

from __future__ import annotations

from collections.abc import Sequence

from tocsin_consumer.channels.base import ONE_DEVICE, Envelope
from tocsin_core.logging import get_logger
from tocsin_core.users import Profile

_log = get_logger(__name__)


class LogChannel:
    """Writes notifications to the service's own log."""

    timeout_seconds = 5.0
    repeats_are_harmless = True

    def __init__(self, name: str) -> None:
        self.name = name

    def devices(self, _: Profile) -> Sequence[str]:
        """Return the one nameless device."""
        return ONE_DEVICE

    async def send(self, envelope: Envelope) -> None:
        """Write one line."""
        notification = envelope.notification
        _log.info(
            "notification",
            notification_id=notification.id,
            from_id=notification.from_id,
            to_id=notification.to_id,
            title=notification.title,
            message=notification.message,
            channel=self.name,
            trace_id=envelope.trace_id,
            topic=envelope.topic,
            partition=envelope.partition,
            offset=envelope.offset,
        )

    async def close(self) -> None:
        """Nothing to let go of."""
