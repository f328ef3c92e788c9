"""The drain of a backlog with one channel that takes two seconds, beside the same drain without that channel.

Every notification goes to every channel. The run it is compared with has the two fast channels alone: with a third
fast one it would have half as much work again, and the slow run would look better than it is. Fresh notifications are
produced at a fixed rate from the first delivery on and for a while after the fast channels have caught up, when the
slow channel is still tens of thousands behind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from bench.delivery.contestants import TOCSIN, Job, Runner, running
from bench.delivery.latency import Drained, summarise
from bench.delivery.stage import Stage, build_records
from tocsin_core.codec import Encoded

FAST = ("a", "b")
SLOW = "c"
SLOW_MS = 2_000
FRESH_PER_SECOND = 100.0
BEHIND_SECONDS = 0.5
SETTLE_SECONDS = 1.0
TAIL_SECONDS = 5.0
LAST_SECONDS = 10.0
GIVE_UP_FACTOR = 2.5
COUNT_INTERVAL_SECONDS = 0.1
TICK_SECONDS = 0.005


class Pair(NamedTuple):
    """One round: the drain without the slow channel and the one with it."""

    alone: Drained
    disturbed: Drained


class Fresh:
    """Notifications at a fixed rate. Each is meant for a moment, whenever it is really sent."""

    def __init__(self, stage: Stage, topic: str) -> None:
        self._stage = stage
        self._topic = topic
        self._began = time.time()
        self.meant: dict[str, float] = {}

    def pump(self) -> bool:
        """Send what is due. Return False: there is always more to come."""
        while (due := self._began + len(self.meant) / FRESH_PER_SECOND) <= time.time():
            number = f"fresh-{len(self.meant):08}"
            [record] = build_records(1, prefix=number)
            self._stage.send(self._topic, record)
            self.meant[f"{number}-00000000"] = due
        return False


def measure_pair(stage: Stage, backlog: Sequence[Encoded], ids: Sequence[str], round_number: int) -> Pair:
    """Drain without and with the slow channel, one after the other, each on a topic of its own."""
    alone = _drain(stage, backlog, ids, name=f"alone-{round_number}", is_disturbed=False, limit_seconds=3_600)
    limit_seconds = max(20.0, GIVE_UP_FACTOR * alone.backlog)
    disturbed = _drain(
        stage, backlog, ids, name=f"disturbed-{round_number}", is_disturbed=True, limit_seconds=limit_seconds
    )
    return Pair(alone, disturbed)


def _drain(
    stage: Stage, backlog: Sequence[Encoded], ids: Sequence[str], *, name: str, is_disturbed: bool, limit_seconds: float
) -> Drained:
    stage.forget_claims()
    stage.create_topic(name)
    stage.produce(name, backlog)
    hooks = [(channel, stage.sink.open(f"{name}-{channel}", delay_ms=0, is_recorded=True)) for channel in FAST]
    if is_disturbed:
        hooks.append((SLOW, stage.sink.open(f"{name}-{SLOW}", delay_ms=SLOW_MS)))
    with running(stage, TOCSIN, Job(name, name, hooks)) as runner:
        runner.wait_or_fail(lambda: _count(stage, name) > 0, what="a first delivery")
        fresh = Fresh(stage, name)
        caught_up = _follow(stage, runner, fresh, name=name, backlog=len(backlog), limit_seconds=limit_seconds)
        ended = time.time()
    receipts = {channel: stage.sink.receipts(f"{name}-{channel}") for channel in FAST}
    return summarise(receipts, backlog=ids, fresh=fresh.meant, caught_up=caught_up, ended=ended)


def _follow(
    stage: Stage, runner: Runner, fresh: Fresh, *, name: str, backlog: int, limit_seconds: float
) -> float | None:
    """Send fresh notifications until the fast channels have caught up and a while longer, or the limit has passed.

    Return since when they had caught up, None if they never did.
    """
    next_count, count = 0.0, 0

    def has_caught_up() -> bool:
        nonlocal next_count, count
        fresh.pump()
        if time.monotonic() >= next_count:
            next_count, count = time.monotonic() + COUNT_INTERVAL_SECONDS, _count(stage, name)
        return count >= backlog + len(fresh.meant) - BEHIND_SECONDS * FRESH_PER_SECOND

    if not runner.wait_for(has_caught_up, seconds=limit_seconds, every_seconds=TICK_SECONDS):
        return None
    runner.wait_for(fresh.pump, seconds=SETTLE_SECONDS, every_seconds=TICK_SECONDS)
    caught_up = time.time()
    runner.wait_for(fresh.pump, seconds=TAIL_SECONDS, every_seconds=TICK_SECONDS)
    runner.wait_for(lambda: _count(stage, name) >= backlog + len(fresh.meant), seconds=LAST_SECONDS)
    return caught_up


def _count(stage: Stage, name: str) -> int:
    return min(stage.sink.count(f"{name}-{channel}") for channel in FAST)
