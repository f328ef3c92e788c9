"""What a process remembers of the users it asked about. Pure: time is passed in.

An answer is fresh for a while, a shorter one where it was "no such user": somebody may be adding them. A profile that
is no longer fresh is kept, for the time when nobody can be asked; a "no such user" is not, because refusing somebody
who has joined meanwhile would be wrong, and saying "ask again" is not. The two are kept apart: whoever asks about a
thousand invented ids must not push out the profiles that an outage would need. cachetools was refused: its caches with
a time to live drop what is past it, and a bound alone is a few lines around OrderedDict.
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


UNKNOWN_SHARE = 10
"""Of how many profiles one unknown user is remembered."""


class ProfileCache:
    """The answers about the users asked for last."""

    def __init__(self, settings: UsersCacheSettings) -> None:
        self._settings = settings
        self._profiles: OrderedDict[str, Remembered] = OrderedDict()
        self._unknown: OrderedDict[str, Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._profiles) + len(self._unknown)

    def find_fresh(self, user_id: str, now: float) -> Remembered | None:
        """Return an answer that needs no asking, None if there is none."""
        entries = self._profiles if user_id in self._profiles else self._unknown
        entry = entries.get(user_id)
        if entry is None or now >= entry.fresh_until:
            return None
        entries.move_to_end(user_id)
        return entry

    def find_stale(self, user_id: str, now: float) -> Profile | None:
        """Return a profile that is good enough while nobody can be asked, None if there is none."""
        entry = self._profiles.get(user_id)
        if entry is None or now >= entry.fresh_until + self._settings.stale_seconds:
            return None
        return entry.profile

    def remember(self, user_id: str, profile: Profile | None, now: float) -> None:
        """Keep an answer; the one that was not needed for longest makes room."""
        settings = self._settings
        if profile is not None:
            entries, others, ttl_seconds, bound = self._profiles, self._unknown, settings.ttl_seconds, settings.entries
        else:
            entries, others, ttl_seconds = self._unknown, self._profiles, settings.unknown_ttl_seconds
            bound = max(1, settings.entries // UNKNOWN_SHARE)
        others.pop(user_id, None)
        entries[user_id] = Remembered(profile, now + ttl_seconds)
        entries.move_to_end(user_id)
        if len(entries) > bound:
            entries.popitem(last=False)
