"""The queue of pipelines to look at: each key once, never two workers on one key, failures further and further apart.

    waiting ──due──► taken ──finish──► gone, or waiting again if it was added meanwhile
       ▲                │
       └──── retry ─────┘  (after 1 s, 2 s, 4 s … 5 min)

What client-go's work queue does, in one ordered dict: asyncio.Queue knows neither duplicates nor delays. The clock is
passed in and all rules are synchronous, so that tests move time by hand; `get` alone waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 300.0


class KeyQueue:
    """Keys that wait until they are due. Not for threads: it lives in one event loop."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        first_retry_seconds: float = FIRST_RETRY_SECONDS,
        last_retry_seconds: float = LAST_RETRY_SECONDS,
    ) -> None:
        self._clock = clock
        self._first_retry_seconds = first_retry_seconds
        self._last_retry_seconds = last_retry_seconds
        self._due_at: dict[str, float] = {}
        self._again_at: dict[str, float] = {}  # added while taken: waits until the worker is done
        self._taken: set[str] = set()
        self._failures: dict[str, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due_at) + len(self._again_at)

    def add(self, key: str, *, after_seconds: float = 0.0) -> None:
        """Have `key` looked at in `after_seconds` at the latest; the earliest of several wishes counts."""
        times = self._again_at if key in self._taken else self._due_at
        due_at = self._clock() + after_seconds
        times[key] = min(times.get(key, due_at), due_at)
        self._changed.set()

    def take(self) -> str | None:
        """Return the key that is due longest and keep it from others until `finish` or `retry`; None if none is due."""
        now = self._clock()
        key = min(self._due_at, key=self._due_at.__getitem__, default=None)
        if key is None or self._due_at[key] > now:
            return None
        del self._due_at[key]
        self._taken.add(key)
        return key

    def finish(self, key: str, *, again_after_seconds: float | None = None) -> None:
        """Give `key` back after a success: its failures are forgotten."""
        self._failures.pop(key, None)
        self._give_back(key, again_after_seconds)

    def retry(self, key: str) -> float:
        """Give `key` back after a failure; return in how many seconds it is due, twice as long each time."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._last_retry_seconds, self._first_retry_seconds * 2.0 ** min(failures, 60))
        self._give_back(key, delay)
        return delay

    def seconds_until_due(self) -> float | None:
        """Return how long until some key is due, 0 for now, None when none waits."""
        earliest = min(self._due_at.values(), default=None)
        return None if earliest is None else max(0.0, earliest - self._clock())

    async def get(self) -> str:
        """Wait until a key is due and take it."""
        while (key := self.take()) is None:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), self.seconds_until_due())
            except TimeoutError:
                continue
        return key

    def _give_back(self, key: str, after_seconds: float | None) -> None:
        self._taken.discard(key)
        added_meanwhile = self._again_at.pop(key, None)
        wishes = [] if after_seconds is None else [self._clock() + after_seconds]
        wishes += [] if added_meanwhile is None else [added_meanwhile]
        if wishes:
            self._due_at[key] = min(wishes)
            self._changed.set()
