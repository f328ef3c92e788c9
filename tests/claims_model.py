"""The store of claims as plainly as it can be written: what the script must do, for tests that need no server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tocsin_consumer.claims import Claim, ClaimKey, Done, Granted, Held


@dataclass
class Entry:
    """A claim. What is done has no holder."""

    holder: str | None
    lapses_at: float = 0.0
    is_uncertain: bool = False


class ModelClaims:
    """Claims in a dictionary, for any number of processes that share it. `now` is in seconds."""

    trouble = ""

    def __init__(self, now: Callable[[], float], *, is_new: bool = True) -> None:
        self._now = now
        self._entries: dict[ClaimKey, Entry] = {}
        self._made_at: float | None = float("-inf") if is_new else None
        self.uncertain = 0

    async def start(self) -> None:
        """Make the generation if there is none."""
        self._remember_generation()

    async def claim(self, key: ClaimKey, token: str, *, lease_seconds: float, accepted_at: datetime) -> Claim:
        made_at = self._remember_generation()
        entry, now = self._entries.get(key), self._now()
        if entry is not None and entry.holder is None:
            return Done()
        if entry is not None and entry.holder == token:
            is_uncertain = entry.is_uncertain
        elif entry is not None and entry.lapses_at > now:
            return Held(min(entry.lapses_at - now, 0.25))
        else:
            is_uncertain = entry is not None or accepted_at.timestamp() <= made_at
            self.uncertain += is_uncertain
        self._entries[key] = Entry(token, now + lease_seconds, is_uncertain)
        return Granted(token, is_uncertain, now + lease_seconds)

    async def mark_done(self, key: ClaimKey) -> None:
        self._remember_generation()
        self._entries[key] = Entry(None)

    async def release(self, key: ClaimKey, token: str, *, is_uncertain: bool) -> None:
        self._remember_generation()
        entry = self._entries.get(key)
        if entry is None or entry.holder != token:
            return
        if is_uncertain:
            self._entries[key] = Entry(token, 0.0, is_uncertain=True)
        else:
            del self._entries[key]

    async def flush(self) -> None:
        """Lose everything but the count, which a test wants to keep."""
        self._entries.clear()
        self._made_at = None

    async def close(self) -> None:
        """Nothing to close."""

    def _remember_generation(self) -> float:
        self._made_at = self._now() if self._made_at is None else self._made_at
        return self._made_at
