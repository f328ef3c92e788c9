"""Envelopes for the tests of channels."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tocsin_consumer.channels.base import Envelope
from tocsin_core.message import Notification
from tocsin_core.users import Profile

ACCEPTED_AT = datetime(2026, 7, 14, 12, 0, 0, tzinfo=UTC)
ADA = Profile(id="2", name="Ada Lovelace", email="ada@example.org", locale="en")


def make_envelope(profile: Profile = ADA, **fields: Any) -> Envelope:
    notification = Notification(
        **{"id": "0197a3c0-0000-7000-8000-000000000001", "from_id": "1", "to_id": "2", "message": "hi"} | fields
    )
    return Envelope(
        notification,
        profile,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        topic="t",
        partition=3,
        offset=7,
        accepted_at=ACCEPTED_AT,
    )
