"""Waiting for what was accepted to end, and knowing when to stop waiting. The decision is pure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tocsin_core.retry import RETRY_DELAYS_SECONDS

LOOK_SECONDS = 0.2
STALL_SECONDS = 60.0
"""So long may nothing at all happen before what is open counts as lost; what waits in a lane fits into it."""
DEFERRED_STALL_SECONDS = STALL_SECONDS + max(RETRY_DELAYS_SECONDS)
"""So long where something waits in a retry topic."""
HURRY_SECONDS = 30.0
"""So long somebody who pressed Ctrl-C waits."""


class Patience(NamedTuple):
    """Until when to wait: as long as things move, but not beyond `at_most_seconds`."""

    stall_seconds: float = STALL_SECONDS
    at_most_seconds: float | None = None

    def is_over(self, *, waited_seconds: float, quiet_seconds: float) -> bool:
        """Return whether to stop waiting, after so long in all and so long without any movement."""
        if self.at_most_seconds is not None and waited_seconds >= self.at_most_seconds:
            return True
        return quiet_seconds >= self.stall_seconds


async def settle(
    count_open: Callable[[], Awaitable[int]], patience: Callable[[], Patience], progress: Callable[[], int]
) -> bool:
    """Wait until nothing is open and return True, or until patience is over and return False.

    `progress` is any number that changes when something ends; `patience` is asked each time, as a Ctrl-C shortens it.
    """
    now = asyncio.get_running_loop().time
    started = moved = now()
    last = progress()
    while await count_open():
        if progress() != last:
            last, moved = progress(), now()
        if patience().is_over(waited_seconds=now() - started, quiet_seconds=now() - moved):
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True


async def wait_until(holds: Callable[[], bool], *, at_most_seconds: float, stop: asyncio.Event) -> bool:
    """Wait until `holds` and return True; return False after `at_most_seconds` or when `stop` is set."""
    now = asyncio.get_running_loop().time
    deadline = now() + at_most_seconds
    while not holds():
        if stop.is_set() or now() >= deadline:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True
