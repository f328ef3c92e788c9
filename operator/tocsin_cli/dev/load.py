"""Generated load over real HTTP: as many notifications as a profile says are due, to the file's own users."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import cycle

import msgspec

from tocsin_cli.dev.profile import Profile
from tocsin_cli.feed import Post
from tocsin_cli.poster import Answer

TICK_SECONDS = 0.02
IN_FLIGHT = 512
"""Requests under way at once; above it the load falls behind, and the screen shows the rate it really has."""


def build_body(number: int, user_id: str) -> bytes:
    """Return the body of the load's notification with this number; users write to themselves, as senders are known."""
    return msgspec.json.encode(
        {
            "fromID": user_id,
            "toID": user_id,
            "title": f"Order {number}",
            "message": f"Your order {number} is on its way.",
        }
    )


class Load:
    """Runs one profile once."""

    def __init__(self, profile: Profile, user_ids: Sequence[str]) -> None:
        self.profile = profile
        self.sent = 0
        self.elapsed_seconds = 0.0
        self._users = cycle(user_ids)
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def run(self, post: Post, report: Callable[[Answer], None], stop: asyncio.Event) -> None:
        """Send until the profile is over or `stop` is set; return when every request was answered."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set() and self.elapsed_seconds < self.profile.seconds:
                self.elapsed_seconds = min(loop.time() - started, self.profile.seconds)
                while self.sent < self.profile.due(self.elapsed_seconds) and not stop.is_set():
                    await self._slots.acquire()
                    self.sent += 1
                    group.create_task(self._post(build_body(self.sent, next(self._users)), post, report))
                await asyncio.sleep(TICK_SECONDS)

    async def _post(self, body: bytes, post: Post, report: Callable[[Answer], None]) -> None:
        try:
            report(await post(body))
        finally:
            self._slots.release()
