"""A bound on how long something may take: one timer for all that runs, where `asyncio.timeout` makes one for each.

Everything here may take equally long, so what began first is over first, and the one timer stands at that moment. What
is over is cancelled and ends in TimeoutError, as with `asyncio.timeout`; a cancellation from elsewhere stays one.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Ends what takes longer than so many seconds. `with deadlines.begin(): await ...`, within a task."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[_Limit, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> _Limit:
        """Return a context that raises TimeoutError when its time is over; it begins now."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cancelled when its time is over")
        loop = asyncio.get_running_loop()
        limit = _Limit(self._running, task, loop.time() + self._seconds)
        self._running[limit] = None
        if self._timer is None:
            self._timer = loop.call_at(limit.ends_at, self._end)
        return limit

    def _end(self) -> None:
        """Cancel what is over, and come back when the next will be."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for limit in list(self._running):
            if limit.ends_at > loop.time():
                self._timer = loop.call_at(limit.ends_at, self._end)
                return
            del self._running[limit]
            limit.cancel()


class _Limit:
    """What runs, and until when it may."""

    __slots__ = ("_is_over", "_running", "_task", "_were_cancelling", "ends_at")

    def __init__(self, running: dict[_Limit, None], task: asyncio.Task[object], ends_at: float) -> None:
        self._running = running
        self._task = task
        self._were_cancelling = task.cancelling()
        self._is_over = False
        self.ends_at = ends_at

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.pop(self, None)
        if self._is_over and self._task.uncancel() <= self._were_cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def cancel(self) -> None:
        """End it: its time is over."""
        self._is_over = True
        self._task.cancel()
