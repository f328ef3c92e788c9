"""Trouble that repeats is said once in a while, not once per record.

When a broker or a store is away, thousands of records meet the same wall; a log line for each would bury the one line
that says what to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

EVERY_SECONDS = 10.0
MAX_REMEMBERED = 256


class Complaints:
    """Says each complaint at most every ten seconds, with how often it was left unsaid."""

    def __init__(
        self,
        say: Callable[..., Any],
        *,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._every_seconds = every_seconds
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def about(self, event: str, reason: str, **fields: Any) -> None:
        """Say `event` with its reason and fields, unless the same was said a moment ago."""
        now = self._clock()
        said_at, unsaid = self._said.get((event, reason), (float("-inf"), 0))
        if now - said_at < self._every_seconds:
            self._said[event, reason] = (said_at, unsaid + 1)
            return
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()
        self._said[event, reason] = (now, 0)
        self._say(event, reason=reason, **fields, **({"times_unsaid": unsaid} if unsaid else {}))
