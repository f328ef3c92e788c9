"""The real clock, for what is decided by a passed-in time everywhere else.

Seconds since the epoch, because a decision's time must survive a restart; counted on from the start of the process,
because a clock that is set back would undo cooldowns and histories.
"""

from __future__ import annotations

import asyncio
import time


class SteadyClock:
    """Seconds since the epoch that never go back."""

    def __init__(self) -> None:
        self._offset_seconds = time.time() - time.monotonic()

    def now_seconds(self) -> float:
        """Return seconds since the epoch."""
        return time.monotonic() + self._offset_seconds

    async def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        await asyncio.sleep(seconds)
