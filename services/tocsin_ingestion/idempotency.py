"""What this process remembers of Idempotency-Keys: which are in flight, and what came of them for 24 hours.

Per process and bounded, and documented as such. Behind several pods, or after a restart, a repeat may be produced
again: under the same id, because the id derives from the key, so that whoever removes duplicates downstream can.
A shared store is a later release's; until then this table spares the usual repeat, on a kept-alive connection to the
same pod, a second record. The clock is passed in.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import NamedTuple

import msgspec

from tocsin_ingestion.draft import Draft
from tocsin_ingestion.problems import KEY_IN_FLIGHT, KEY_REUSED, Problem

REMEMBER_SECONDS = 86_400.0
MAX_REMEMBERED = 50_000
"""About 15 MB when full. The oldest is forgotten first."""


class Settled(NamedTuple):
    """What came of a notification under a key: stored, or (after a 504) perhaps stored."""

    fingerprint: bytes
    is_stored: bool
    forget_at: float


def fingerprint(draft: Draft) -> bytes:
    """Return what tells two drafts apart, whatever their spelling: spaces, order of keys or encoding."""
    text = msgspec.json.encode(draft.build_notification(""), order="deterministic")
    return hashlib.blake2b(text, digest_size=16).digest()


class KeyTable:
    """Ids of notifications that came with a key: `claim`, then exactly one of `settle` or `release`."""

    def __init__(self, *, max_remembered: int = MAX_REMEMBERED, remember_seconds: float = REMEMBER_SECONDS) -> None:
        self._max_remembered = max_remembered
        self._remember_seconds = remember_seconds
        self._in_flight: dict[str, bytes] = {}
        self._settled: OrderedDict[str, Settled] = OrderedDict()

    def __len__(self) -> int:
        return len(self._in_flight) + len(self._settled)

    def claim(self, notification_id: str, mark: bytes, *, now: float) -> bool:
        """Take the id for sending and return True; return False if it is stored already and is not to be sent.

        Raise Problem: 422 if the id was used with another fingerprint, 409 if it is in flight.
        """
        self._forget(now)
        settled = self._settled.get(notification_id)
        known = settled.fingerprint if settled else self._in_flight.get(notification_id)
        if known is not None and known != mark:
            raise Problem(KEY_REUSED, "Send the first notification again, or this one under a new Idempotency-Key")
        if notification_id in self._in_flight:
            raise Problem(KEY_IN_FLIGHT, "Wait for the first answer, or repeat this request later")
        if settled is not None and settled.is_stored:
            return False
        self._in_flight[notification_id] = mark
        return True

    def settle(self, notification_id: str, *, is_stored: bool, now: float) -> None:
        """Remember that the notification is stored, or (`is_stored` False) that nobody knows: it may be sent again."""
        mark = self._in_flight.pop(notification_id)
        self._settled.pop(notification_id, None)
        self._settled[notification_id] = Settled(mark, is_stored, now + self._remember_seconds)
        self._forget(now)

    def release(self, notification_id: str) -> None:
        """Give the id back: nothing was stored under it, and it may be used for anything."""
        self._in_flight.pop(notification_id, None)

    def _forget(self, now: float) -> None:
        while self._settled:
            oldest = next(iter(self._settled.values()))
            if len(self._settled) <= self._max_remembered and oldest.forget_at > now:
                return
            self._settled.popitem(last=False)
