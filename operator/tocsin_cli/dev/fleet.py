"""The consumers as processes: what a Deployment is in the cluster.

Scaling in drains the youngest, as the eldest have learned most and keep their partitions. A process that drains no
longer counts as running, but is waited for at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tocsin_cli.processes.child import Child, State


class ConsumerFleet:
    """As many consumer processes as somebody asks for."""

    def __init__(self, start: Callable[[str], Child]) -> None:
        self._start = start
        self._running: list[Child] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._next_number = 0
        self.wanted = 0
        self.most = 0
        self.is_open = True

    @property
    def children(self) -> tuple[Child, ...]:
        """Return the processes that run or start."""
        return tuple(self._running)

    @property
    def running(self) -> int:
        """Return how many processes run or start, those that drain aside."""
        return len(self._running)

    @property
    def ready(self) -> int:
        """Return how many processes said that they are ready."""
        return sum(child.state is State.READY for child in self._running)

    def scale_to(self, replicas: int) -> None:
        """Start or drain processes until `replicas` run; return at once. After `stop` nothing starts any more."""
        if not self.is_open:
            return
        self.wanted = replicas
        while len(self._running) < replicas:
            self._running.append(self._start(f"consumer-{self._next_number}"))
            self._next_number += 1
        while len(self._running) > replicas:
            self._dismiss(self._running.pop())
        self.most = max(self.most, len(self._running))

    async def stop(self) -> None:
        """Drain every process and wait for all of them, those that left earlier too."""
        self.is_open, self.wanted = False, 0
        for child in self._running:
            self._dismiss(child)
        self._running.clear()
        await asyncio.gather(*self._leaving)

    def _dismiss(self, child: Child) -> None:
        task = asyncio.create_task(child.stop())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
