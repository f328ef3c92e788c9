"""Questions about users, asked once however many wait for the answer, and about many users at once.

What is asked for within one turn of the event loop goes out together: a batch of a thousand notifications becomes a few
questions, and a single one waits for nothing. A question belongs to nobody who waits for it: a client that hangs up
takes no answer from the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tocsin_core.directory.source import Answer
from tocsin_core.logging import get_logger
from tocsin_core.users import DirectoryUnavailable, Profile, ProfileInvalid

MAX_OPEN = 20_000
"""How many users may be asked about at once: four batches of ingestion's, or all that a consumer holds."""
CROWDED = DirectoryUnavailable(f"more than {MAX_OPEN} users are being looked up")
ENDING = DirectoryUnavailable("this process is ending")
BROKEN = DirectoryUnavailable("looking users up failed: this is a defect, and the log has its traceback")

_log = get_logger(__name__)

Outcome = Answer | DirectoryUnavailable
Ask = Callable[[Sequence[str]], Awaitable[Sequence[Answer]]]


class Lookups:
    """All questions that are open."""

    def __init__(self, ask: Ask, *, max_ids: int, on_outcome: Callable[[str, Outcome], None]) -> None:
        """Ask about at most so many users at once. `on_outcome` is told of each answer before those who wait for it."""
        self._ask = ask
        self._max_ids = max_ids
        self._on_outcome = on_outcome
        self._open: dict[str, asyncio.Future[Outcome]] = {}
        self._next: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, user_id: str) -> Profile | None:
        """Return what the directory says now. Raise DirectoryUnavailable if it says nothing."""
        future = self._open.get(user_id)
        if future is None:
            if len(self._open) >= MAX_OPEN:
                raise CROWDED.with_traceback(None)
            future = self._open_question(user_id)
        outcome = await asyncio.shield(future)
        if isinstance(outcome, DirectoryUnavailable):
            raise outcome.with_traceback(None)
        return outcome

    async def close(self) -> None:
        """Ask nothing more; whoever waits is told so."""
        self._next = []
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Those whose question had no time to begin: a task that is cancelled before its first step runs nothing.
        self._settle(list(self._open), [ENDING] * len(self._open))

    def _open_question(self, user_id: str) -> asyncio.Future[Outcome]:
        loop = asyncio.get_running_loop()
        if not self._next:
            loop.call_soon(self._send)
        self._next.append(user_id)
        future = self._open[user_id] = loop.create_future()
        return future

    def _send(self) -> None:
        user_ids, self._next = self._next, []
        for start in range(0, len(user_ids), self._max_ids):
            task = asyncio.create_task(self._look_up(user_ids[start : start + self._max_ids]), name="look-users-up")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _look_up(self, user_ids: Sequence[str]) -> None:
        outcomes: Sequence[Outcome] = [ENDING] * len(user_ids)
        try:
            outcomes = await self._ask(user_ids)
        except DirectoryUnavailable as unavailable:
            outcomes = [unavailable] * len(user_ids)
        except Exception:  # noqa: BLE001 - the top of a task that others wait for
            _log.exception("looking users up failed: this is a defect")
            outcomes = [BROKEN] * len(user_ids)
        finally:
            self._settle(user_ids, outcomes)

    def _settle(self, user_ids: Sequence[str], outcomes: Sequence[Outcome]) -> None:
        for user_id, outcome in zip(user_ids, outcomes, strict=True):
            self._on_outcome(user_id, outcome)
            future = self._open.pop(user_id)
            if not future.done():
                future.set_result(outcome)


def name_outcome(outcome: Outcome) -> str:
    """Return the word that metrics have for an outcome."""
    if isinstance(outcome, ProfileInvalid):
        return "invalid"
    if isinstance(outcome, DirectoryUnavailable):
        return "unavailable"
    return "unknown" if outcome is None else "known"
