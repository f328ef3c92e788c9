"""What a process remembers of the users it asked about. Pure: time is passed in.

An answer is fresh for a while, a shorter one where it was "no such user": somebody may be adding them. A profile that
is no longer fresh is kept, for the time when nobody can be asked; a "no such user" is not, because refusing somebody
who has joined meanwhile would be wrong, and saying "ask again" is not. cachetools was refused: its caches with a time
to live drop what is past it, and a bound alone is a few lines around OrderedDict.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from tocsin_core.settings import UsersCacheSettings
from tocsin_core.users import Profile


class Remembered(NamedTuple):
    """One answer: a profile, or None for "no such user", and until when it needs no asking."""

    profile: Profile | None
    fresh_until: float


class ProfileCache:
    """The answers about the users asked for last."""

    def __init__(self, settings: UsersCacheSettings) -> None:
        self._settings = settings
        self._entries: OrderedDict[str, Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find_fresh(self, user_id: str, now: float) -> Remembered | None:
        """Return an answer that needs no asking, None if there is none."""
        entry = self._entries.get(user_id)
        if entry is None or now >= entry.fresh_until:
            return None
        self._entries.move_to_end(user_id)
        return entry

    def find_stale(self, user_id: str, now: float) -> Profile | None:
        """Return a profile that is good enough while nobody can be asked, None if there is none."""
        entry = self._entries.get(user_id)
        if entry is None or now >= entry.fresh_until + self._settings.stale_seconds:
            return None
        return entry.profile

    def remember(self, user_id: str, profile: Profile | None, now: float) -> None:
        """Keep an answer; the one that was not needed for longest makes room."""
        settings = self._settings
        ttl_seconds = settings.ttl_seconds if profile is not None else settings.unknown_ttl_seconds
        self._entries[user_id] = Remembered(profile, now + ttl_seconds)
        self._entries.move_to_end(user_id)
        if len(self._entries) > settings.entries:
            self._entries.popitem(last=False)
