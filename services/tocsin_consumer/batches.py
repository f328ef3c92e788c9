"""One call for everything that is asked for within a moment.

Lanes ask one thing each and just await the answer; a round trip for each would cost ten times the CPU of one for all.
While as many calls run as may, what is asked meanwhile waits and goes with the next: the busier it is, the larger the
batches. Where a server answers at once that is not enough, so calls may be kept apart, too: what is asked after a quiet
moment goes without delay, what follows on its heels is collected until the pause between two calls is over.
A call that fails fails for those who wait behind it too, so that a server that has stalled costs them one timeout, not
one each; and no more may wait than `max_waiting`, so a stall never grows memory without bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

MAX_SIZE = 256
MAX_WAITING = 20_000

T = TypeVar("T")
R = TypeVar("R")


class TooManyWaiting(Exception):
    """As many requests as may wait do; nothing was asked."""


class Batches(Generic[T, R]):
    """Hands requests to `run` in batches. `run` answers each, in order, or raises for all of them."""

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_running: int,
        max_size: int = MAX_SIZE,
        max_waiting: int = MAX_WAITING,
        apart_seconds: float = 0.0,
    ) -> None:
        """`apart_seconds` is how long after a call has begun the next one begins at the earliest."""
        self._run = run
        self._max_running = max_running
        self._max_size = max_size
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._apart_seconds = apart_seconds
        self._next_begin = float("-inf")
        self._is_scheduled = False

    async def ask(self, request: T) -> R:
        """Return the answer to a request. Raise TooManyWaiting, or whatever its batch's call raised."""
        if len(self._waiting) >= self._max_waiting:
            raise TooManyWaiting
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        self._schedule()
        return await answer

    async def close(self) -> None:
        """Cancel what waits, and let the calls that run end."""
        while self._waiting:
            self._waiting.popleft()[1].cancel()
        await asyncio.gather(*self._running)

    def _schedule(self) -> None:
        if self._is_scheduled or not self._waiting or len(self._running) >= self._max_running:
            return
        self._is_scheduled = True
        loop = asyncio.get_running_loop()
        wait_seconds = self._next_begin - loop.time()
        if wait_seconds > 0:
            loop.call_later(wait_seconds, self._begin)
        else:
            loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._is_scheduled = False
        loop = asyncio.get_running_loop()
        while self._waiting and len(self._running) < self._max_running:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_size))]
            task = loop.create_task(self._answer(batch))
            self._running.add(task)
            task.add_done_callback(self._end)
            self._next_begin = loop.time() + self._apart_seconds

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._schedule()

    async def _answer(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._run([request for request, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to everyone who asked
            behind, self._waiting = self._waiting, deque()
            for _, future in (*batch, *behind):
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
