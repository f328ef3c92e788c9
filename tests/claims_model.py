"""The store of claims as plainly as it can be written: what the script must do, for tests that need no server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tocsin_consumer.claims import NO_PLACE, Buried, Claim, ClaimKey, Done, Granted, Held


@dataclass
class Entry:
    """A claim, or what is over: what is done has no holder, what is buried the place of its record."""

    holder: str | None
    lapses_at: float = 0.0
    is_uncertain: bool = False
    buried: str = ""

    @property
    def leaves_doubt(self) -> bool:
        """Return whether somebody may have sent under it: a claim that just lapsed says nothing, so it may."""
        return self.is_uncertain or not self.buried


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

    async def claim(
        self, key: ClaimKey, token: str, *, lease_seconds: float, accepted_at: datetime, place: str = NO_PLACE
    ) -> Claim:
        made_at = self._remember_generation()
        entry, now = self._entries.get(key), self._now()
        if entry is not None and entry.holder is None:
            return Done()
        if entry is not None and entry.buried == place:
            return Buried()
        if entry is not None and entry.holder == token:
            is_uncertain = entry.is_uncertain
        elif entry is not None and entry.lapses_at > now:
            return Held(min(entry.lapses_at - now, 0.25))
        else:
            is_uncertain = entry.leaves_doubt if entry is not None else accepted_at.timestamp() <= made_at
            self.uncertain += is_uncertain
        self._entries[key] = Entry(token, now + lease_seconds, is_uncertain)
        return Granted(token, is_uncertain, now + lease_seconds)

    async def mark_done(self, key: ClaimKey) -> None:
        self._remember_generation()
        self._entries[key] = Entry(None)

    async def mark_buried(self, key: ClaimKey, *, place: str) -> None:
        self._remember_generation()
        entry = self._entries.get(key)
        if entry is None or entry.holder is not None:
            self._entries[key] = Entry("", is_uncertain=entry is not None and entry.leaves_doubt, buried=place)

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
