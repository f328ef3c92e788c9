"""The user directory behind a network, as callers see it: an answer from memory, or a question.

While it is down, a profile that is past its time is better than none: a recipient who existed ten minutes ago almost
surely does, and an outage of the directory need not be one of notifications. How long that is good enough is bounded
(`users.cache.stale_seconds`). Someone who is not remembered is neither known nor unknown then, and callers are told so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from tocsin_core.directory import metrics
from tocsin_core.directory.cache import ProfileCache
from tocsin_core.directory.guard import Guard
from tocsin_core.directory.lookups import Lookups, Outcome, name_outcome
from tocsin_core.directory.source import ProfileSource
from tocsin_core.settings import UsersCacheSettings
from tocsin_core.users import DirectoryUnavailable, Profile

NOBODY = "-"
"""Who is asked about to see whether the directory answers; whether they exist does not matter."""


class RemoteUserDirectory:
    """Remembers what a source answered, and asks it about the rest."""

    def __init__(
        self, source: ProfileSource, settings: UsersCacheSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.patience_seconds = settings.stale_seconds
        self._source = source
        self._clock = clock
        self._cache = ProfileCache(settings)
        self._guard = Guard(source, clock=clock)
        self._lookups = Lookups(self._guard.ask, max_ids=source.max_ids, on_outcome=self._note)

    @property
    def trouble(self) -> str:
        """Return why the directory is left alone at present, "" if it is not."""
        return self._guard.trouble

    async def find(self, user_id: str) -> Profile | None:
        """Return the user's profile, None if there is no such user.

        Raise DirectoryUnavailable if the directory does not say and the user is not remembered.
        """
        entry = self._cache.find_fresh(user_id, self._clock())
        if entry is not None:
            metrics.CACHE["hit"] += 1
            return entry.profile
        metrics.CACHE["miss"] += 1
        try:
            return await self._lookups.find(user_id)
        except DirectoryUnavailable:
            profile = self._cache.find_stale(user_id, self._clock())
            if profile is None:
                raise
            metrics.CACHE["stale"] += 1
            return profile

    def knows_all(self, user_ids: Collection[str]) -> bool:
        """Say that there are these users. False says nothing: of one, nothing fresh is remembered."""
        now = self._clock()
        for user_id in user_ids:
            entry = self._cache.find_fresh(user_id, now)
            if entry is None or entry.profile is None:
                return False
        metrics.CACHE["hit"] += len(user_ids)
        return True

    async def check(self) -> None:
        """Ask about nobody in particular. Raise DirectoryUnavailable if there is no answer."""
        await self._guard.ask([NOBODY])

    async def close(self) -> None:
        """End what is being asked and close the connections."""
        await self._lookups.close()
        await self._source.close()

    def _note(self, user_id: str, outcome: Outcome) -> None:
        metrics.LOOKUPS[name_outcome(outcome)].inc()
        if not isinstance(outcome, DirectoryUnavailable):
            self._cache.remember(user_id, outcome, self._clock())
