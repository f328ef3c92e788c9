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

from tocsin_consumer.channels.base import Channel, Envelope
from tocsin_consumer.claims import Claim, Claims, Granted
from tocsin_core.assignment import Assignment
from tocsin_core.consumer import RecordConsumer


class CrashPoint(StrEnum):
    """The places."""

    AFTER_CLAIM = "after-claim"
    AFTER_SEND = "after-send"
    AFTER_DONE = "after-done"
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


class CrashingClaims:
    """Claims with a crash point after each step."""

    def __init__(self, claims: Claims, crash: Crash) -> None:
        self._claims = claims
        self._crash = crash

    async def claim(self, notification_id: str, channel: str, *, lease_seconds: float) -> Claim:
        claim = await self._claims.claim(notification_id, channel, lease_seconds=lease_seconds)
        if isinstance(claim, Granted):
            await self._crash.reach(CrashPoint.AFTER_CLAIM)
        return claim

    async def mark_done(self, notification_id: str, channel: str) -> None:
        await self._claims.mark_done(notification_id, channel)
        await self._crash.reach(CrashPoint.AFTER_DONE)

    async def release(self, notification_id: str, channel: str, claim: Granted, *, is_uncertain: bool) -> None:
        await self._claims.release(notification_id, channel, claim, is_uncertain=is_uncertain)

    async def close(self) -> None:
        await self._claims.close()


class CrashingChannel:
    """A channel with a crash point after the provider's answer."""

    def __init__(self, channel: Channel, crash: Crash) -> None:
        self._channel = channel
        self._crash = crash
        self.name = channel.name
        self.timeout_seconds = channel.timeout_seconds

    async def send(self, envelope: Envelope) -> None:
        await self._channel.send(envelope)
        await self._crash.reach(CrashPoint.AFTER_SEND)

    async def close(self) -> None:
        await self._channel.close()


def build_crashing_consumer(crash: Crash) -> type[RecordConsumer]:
    """Return a consumer that dies before its first commit, or in a hand-over between drain and commit."""

    class CrashingConsumer(RecordConsumer):
        def _commit(self, consumer: Consumer) -> None:
            if crash.point not in {CrashPoint.BEFORE_COMMIT, CrashPoint.IN_REVOKE}:
                super()._commit(consumer)
            elif crash.point is CrashPoint.BEFORE_COMMIT and _finished(self._assignments.values()) >= crash.after:
                die()

        def _commit_and_wait(self, consumer: Consumer, assignments: list[Assignment]) -> None:
            if crash.point is CrashPoint.IN_REVOKE:
                die()
            super()._commit_and_wait(consumer, assignments)

    return CrashingConsumer


def _finished(assignments: Iterable[Any]) -> int:
    return sum(each.finished_records for each in assignments)
