"""Order where it matters, concurrency everywhere else.

A lane holds the deliveries of one (partition, key, channel) and runs them one at a time, in order; different lanes run
at once, as far as there are slots. A delivery that has to wait (a backoff, somebody else's claim) parks its lane and
gives its slot to another. Tasks exist only for deliveries that are running: a backlog of any size is entries in
deques, never waiting tasks.

Before a channel's lanes start anything its gate is asked: a closed gate (a provider in trouble) makes them wait,
whatever slots are free. Only what a hand-over waits for passes a closed gate, because it must come to some end.

    READY ──slot──► RUNNING ──┬─ finished ──► next delivery: READY, or the lane is gone
      ▲                       └─ pause ─────► PARKED ──time is over, or hurry()──┐
      └──────────────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

from tocsin_consumer.slots import Slots
from tocsin_core.logging import get_logger

DEFECT_PAUSE_SECONDS = 5.0

_log = get_logger(__name__)


class State(Enum):
    """What a lane is doing."""

    READY = auto()
    RUNNING = auto()
    PARKED = auto()


class Item(Protocol):
    """What a lane needs to know of a delivery."""

    @property
    def lane(self) -> Hashable:
        """Return what is delivered in order: deliveries of equal lanes never overlap."""
        ...

    @property
    def slot(self) -> str:
        """Return the channel whose slots it uses; one of those the slots were made for."""
        ...


class Gate(Protocol):
    """Says whether a channel may start deliveries now."""

    def admits(self, channel: str) -> bool:
        """Return whether the channel may start one more delivery."""
        ...

    def note_start(self, channel: str, item: object) -> None:
        """Take note that a delivery starts because the gate admitted it."""
        ...

    def note_stop(self, channel: str, item: object) -> None:
        """Take note that a delivery has stopped, however it went."""
        ...


class OpenGate:
    """Admits everything."""

    def admits(self, channel: str) -> bool:
        """Return True."""
        del channel
        return True

    def note_start(self, channel: str, item: object) -> None:
        """Forget."""

    def note_stop(self, channel: str, item: object) -> None:
        """Forget."""


T = TypeVar("T", bound=Item)


class Lane(Generic[T]):
    """The deliveries that must keep their order."""

    __slots__ = ("items", "key", "parked", "state")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.items: deque[T] = deque()
        self.state = State.READY
        self.parked: asyncio.TimerHandle | None = None


class Lanes(Generic[T]):
    """All lanes of one process.

    `attempt(item)` returns None when the item has reached its end, else how many seconds to wait before it is tried
    again. `begin(item)` is asked before every attempt; where it says no, the item is dropped.
    """

    def __init__(
        self,
        slots: Slots,
        *,
        attempt: Callable[[T], Awaitable[float | None]],
        begin: Callable[[T], bool],
        ended: Callable[[T], None],
        dropped: Callable[[T], None],
        gate: Gate | None = None,
        is_urgent: Callable[[T], bool] = lambda _: False,
    ) -> None:
        self._gate = gate or OpenGate()
        self._is_urgent = is_urgent
        self._slots = slots
        self._attempt = attempt
        self._begin = begin
        self._ended = ended
        self._dropped = dropped
        self._lanes: dict[Hashable, Lane[T]] = {}
        self._ready: dict[str, deque[Lane[T]]] = {channel: deque() for channel in slots.channels}
        self._urgent: dict[str, deque[Lane[T]]] = {channel: deque() for channel in slots.channels}
        self._turns = deque(slots.channels)
        self._waiting = 0
        """How many lanes are ready."""
        self._tasks: dict[Lane[T], asyncio.Task[None]] = {}
        """Of the lanes that run. Each takes itself out: a callback for it would be one more turn of the loop."""

    def depth(self, key: Hashable) -> int:
        """Return how many deliveries a lane holds."""
        lane = self._lanes.get(key)
        return len(lane.items) if lane else 0

    def is_waiting(self, channel: str) -> bool:
        """Return whether a lane of the channel waits for a slot or for its gate."""
        return bool(self._ready[channel])

    def push(self, item: T) -> None:
        """Put a delivery at the end of its lane."""
        lane = self._lanes.get(item.lane)
        if lane is None:
            lane = self._lanes[item.lane] = Lane(item.lane)
            lane.items.append(item)
            self._make_ready(lane)
        else:
            lane.items.append(item)

    def pump(self) -> None:
        """Start as many ready lanes as there are free slots: of the channel that uses the fewest, else in turn.

        In turn alone, a channel whose every send takes seconds would gather all the slots that others give back.
        """
        has_started = True
        while has_started and self._waiting:
            has_started = False
            self._turns.rotate(-1)
            for channel in sorted(self._turns, key=self._slots.count_used):
                has_started |= self._slots.is_free(channel) and self._start_next(channel)

    def hurry(self) -> None:
        """End the waiting, for time or for a gate, of lanes whose first delivery is urgent by now."""
        for ready, urgent in zip(self._ready.values(), self._urgent.values(), strict=True):
            urgent.extend(lane for lane in ready if self._is_urgent(lane.items[0]))
            waiting = [lane for lane in ready if not self._is_urgent(lane.items[0])]
            ready.clear()
            ready.extend(waiting)
        for lane in list(self._lanes.values()):
            if lane.state is State.PARKED and self._is_urgent(lane.items[0]):
                self._unpark(lane)
        self.pump()

    async def close(self) -> None:
        """Cancel what still runs and forget the rest."""
        for lane in self._lanes.values():
            if lane.parked is not None:
                lane.parked.cancel()
        self._lanes.clear()
        for ready in (*self._ready.values(), *self._urgent.values()):
            ready.clear()
        self._waiting = 0
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def _start_next(self, channel: str) -> bool:
        """Start the channel's next lane, or find it empty; return False if there is none that may start."""
        is_urgent = bool(self._urgent[channel])
        waiting = self._urgent[channel] or self._ready[channel]
        if not waiting or not (is_urgent or self._gate.admits(channel)):
            return False
        lane = waiting.popleft()
        self._waiting -= 1
        while lane.items and not self._begin(lane.items[0]):
            self._dropped(lane.items.popleft())
        if lane.items:
            self._launch(lane, channel, is_urgent=is_urgent)
        else:
            self._lanes.pop(lane.key, None)
        return True

    def _launch(self, lane: Lane[T], channel: str, *, is_urgent: bool) -> None:
        if not is_urgent:
            self._gate.note_start(channel, lane.items[0])
        self._slots.take(channel)
        lane.state = State.RUNNING
        self._tasks[lane] = asyncio.get_running_loop().create_task(self._run(lane, channel))

    async def _run(self, lane: Lane[T], channel: str) -> None:
        try:
            pause_seconds = await self._attempt(lane.items[0])
        except Exception:  # noqa: BLE001 - the top of a lane: a defect must not stop the others
            _log.exception(
                "a delivery broke and is tried again: this is a defect", again_in_seconds=DEFECT_PAUSE_SECONDS
            )
            pause_seconds = DEFECT_PAUSE_SECONDS
        finally:
            self._tasks.pop(lane, None)
            self._slots.release(channel)
            self._gate.note_stop(channel, lane.items[0])
        if pause_seconds is None:
            item = lane.items.popleft()
            self._move_on(lane)
            self._ended(item)
        else:
            self._park(lane, pause_seconds)
        self.pump()

    def _move_on(self, lane: Lane[T]) -> None:
        if lane.items:
            self._make_ready(lane)
        else:
            self._lanes.pop(lane.key, None)

    def _park(self, lane: Lane[T], seconds: float) -> None:
        lane.state = State.PARKED
        lane.parked = asyncio.get_running_loop().call_later(seconds, self._wake, lane)

    def _wake(self, lane: Lane[T]) -> None:
        self._unpark(lane)
        self.pump()

    def _unpark(self, lane: Lane[T]) -> None:
        if lane.parked is not None:
            lane.parked.cancel()
            lane.parked = None
        self._make_ready(lane)

    def _make_ready(self, lane: Lane[T]) -> None:
        lane.state = State.READY
        head = lane.items[0]
        self._waiting += 1
        (self._urgent if self._is_urgent(head) else self._ready)[head.slot].append(lane)
