"""Places where a consumer kills itself, put in from outside: the shipped code holds no failpoints.

At a crash point every delivery that arrives is held, and when `after` of them are there the process ends by SIGKILL.
So it is known exactly what was under way: with as many slots as recipients, one delivery of each.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from confluent_kafka import Consumer

from tocsin_consumer.claims import Claim, Granted
from tocsin_core.assignment import Assignment
from tocsin_core.consumer import RecordConsumer


class CrashPoint(StrEnum):
    """The places."""

    AFTER_CLAIM = "after-claim"
    AFTER_SEND = "after-send"
    AFTER_DONE = "after-done"
    AFTER_BURIAL = "after-burial"
    AFTER_RETRY_PRODUCE = "after-retry-produce"
    BEFORE_COMMIT = "before-commit"
    IN_REVOKE = "in-revoke"


class Crash:
    """Kills the process once `after` deliveries have reached `point`."""

    def __init__(self, point: CrashPoint, after: int) -> None:
        self.point = point
        self.after = after
        self._arrived = 0

    async def reach(self, point: CrashPoint) -> None:
        """Hold whoever comes to the chosen point; with the last one, die."""
        if point is not self.point:
            return
        self._arrived += 1
        if self._arrived == self.after:
            die()
        await asyncio.Event().wait()


def die() -> None:
    """End as a crash does: no handler, no buffer, no goodbye."""
    os.kill(os.getpid(), signal.SIGKILL)


class Around:
    """Something with a crash point in one of its methods; all else is its own."""

    def __init__(self, inner: Any, crash: Crash) -> None:
        self._inner = inner
        self._crash = crash

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class CrashingClaims(Around):
    """Claims with a crash point after each step."""

    async def claim(self, *words: Any, **more: Any) -> Claim:
        claim: Claim = await self._inner.claim(*words, **more)
        if isinstance(claim, Granted):
            await self._crash.reach(CrashPoint.AFTER_CLAIM)
        return claim

    async def mark_done(self, *words: Any) -> None:
        await self._inner.mark_done(*words)
        await self._crash.reach(CrashPoint.AFTER_DONE)

    async def mark_buried(self, *words: Any, **more: Any) -> None:
        await self._inner.mark_buried(*words, **more)
        await self._crash.reach(CrashPoint.AFTER_BURIAL)


class CrashingChannel(Around):
    """A channel with a crash point after the provider's answer."""

    async def send(self, *words: Any) -> None:
        await self._inner.send(*words)
        await self._crash.reach(CrashPoint.AFTER_SEND)


class CrashingRetryTopics(Around):
    """Retry topics with a crash point after the broker's acknowledgement."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "on_change":
            self._inner.on_change = value
        else:
            super().__setattr__(name, value)

    async def defer(self, *words: Any) -> None:
        await self._inner.defer(*words)
        await self._crash.reach(CrashPoint.AFTER_RETRY_PRODUCE)


def build_crashing_consumer(crash: Crash) -> type[RecordConsumer]:
    """Return a consumer that dies before its first commit, or in a hand-over between drain and commit.

    Where it dies after a burial, no commit comes before that either.
    """

    class CrashingConsumer(RecordConsumer):
        def _commit_due(self, consumer: Consumer) -> None:
            if crash.point not in {CrashPoint.BEFORE_COMMIT, CrashPoint.IN_REVOKE, CrashPoint.AFTER_BURIAL}:
                super()._commit_due(consumer)
            elif crash.point is CrashPoint.BEFORE_COMMIT and _finished(self._assignments.values()) >= crash.after:
                die()

        def _settle(self, consumer: Consumer, assignments: list[Assignment]) -> None:
            if crash.point is CrashPoint.IN_REVOKE:
                die()
            super()._settle(consumer, assignments)

    return CrashingConsumer


def _finished(assignments: Iterable[Assignment]) -> int:
    return sum(tracker.passed for each in assignments for name, tracker in each.cursors.items() if name)
