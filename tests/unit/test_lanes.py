"""Lanes: order within one, concurrency across them, and what happens to those that wait."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tocsin_consumer.lanes import Lanes
from tocsin_consumer.slots import Slots


@dataclass(eq=False)
class Parcel:
    lane: str
    number: int
    slot: str = "a"


class Courier:
    """Runs lanes under the test's control: an attempt ends when the test says so."""

    def __init__(self, concurrency: int = 2, channels: tuple[str, ...] = ("a",)) -> None:
        self.running: list[Parcel] = []
        self.has_begun = asyncio.Event()
        self.ended: list[Parcel] = []
        self.dropped: list[Parcel] = []
        self.may_begin: Callable[[Parcel], bool] = lambda _: True
        self.closed: set[str] = set()
        self.started: list[str] = []
        self.stopped: list[object] = []
        self.urgent: set[Parcel] = set()
        self._verdicts: dict[int, asyncio.Future[float | None]] = {}
        self.slots = Slots(concurrency, dict.fromkeys(channels, concurrency), clock=lambda: 0.0)
        self.lanes: Lanes[Parcel] = Lanes(
            self.slots,
            attempt=self._attempt,
            begin=self._begin,
            ended=self.ended.append,
            dropped=self.dropped.append,
            gate=self,
            is_urgent=lambda parcel: parcel in self.urgent,
        )

    def admits(self, channel: str) -> bool:
        return channel not in self.closed

    def note_start(self, channel: str, _: object) -> None:
        self.started.append(channel)

    def note_stop(self, _: str, item: object) -> None:
        self.stopped.append(item)

    def push(self, *parcels: Parcel) -> None:
        for parcel in parcels:
            self.lanes.push(parcel)
        self.lanes.pump()

    async def finish(self, parcel: Parcel, pause_seconds: float | None = None) -> None:
        self._verdicts[id(parcel)].set_result(pause_seconds)
        await settle()

    def _begin(self, parcel: Parcel) -> bool:
        return self.may_begin(parcel)

    async def _attempt(self, parcel: Parcel) -> float | None:
        self.running.append(parcel)
        self.has_begun.set()
        verdict: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self._verdicts[id(parcel)] = verdict
        try:
            return await verdict
        finally:
            self.running.remove(parcel)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_lane_runs_one_at_a_time_and_in_order() -> None:
    courier = Courier()
    first, second = Parcel("x", 1), Parcel("x", 2)
    courier.push(first, second)
    await settle()
    assert courier.running == [first]
    await courier.finish(first)
    assert courier.running == [second]
    assert courier.ended == [first]
    await courier.lanes.close()


async def test_different_lanes_run_at_once_up_to_the_slots() -> None:
    courier = Courier(concurrency=2)
    parcels = [Parcel(lane, 1) for lane in "xyz"]
    courier.push(*parcels)
    await settle()
    assert courier.running == parcels[:2]
    await courier.finish(parcels[0])
    assert courier.running == parcels[1:]
    await courier.lanes.close()


async def test_a_channel_that_gives_nothing_back_does_not_gather_what_the_others_do() -> None:
    courier = Courier(concurrency=12, channels=("slow", "quick"))
    courier.push(*(Parcel(f"{slot}-{number}", number, slot) for number in range(100) for slot in ("slow", "quick")))
    await settle()
    for _ in range(40):
        await courier.finish(next(parcel for parcel in courier.running if parcel.slot == "quick"))
    used = [parcel.slot for parcel in courier.running]
    assert (used.count("slow"), used.count("quick")) == (6, 6)
    await courier.lanes.close()


async def test_a_waiting_delivery_gives_its_slot_away_but_keeps_its_lane() -> None:
    courier = Courier(concurrency=1)
    first, behind, other = Parcel("x", 1), Parcel("x", 2), Parcel("y", 1)
    courier.push(first, behind, other)
    await settle()
    await courier.finish(first, pause_seconds=3600)
    assert courier.running == [other]
    await courier.finish(other)
    assert courier.running == []
    assert courier.lanes.depth("x") == 2
    await courier.lanes.close()


async def test_a_waiting_delivery_is_tried_again_when_its_time_has_come() -> None:
    courier = Courier()
    parcel = Parcel("x", 1)
    courier.push(parcel)
    await settle()
    courier.has_begun.clear()
    await courier.finish(parcel, pause_seconds=0.0)
    await asyncio.wait_for(courier.has_begun.wait(), 5)
    await courier.finish(parcel)
    assert courier.ended == [parcel]
    await courier.lanes.close()


async def test_hurrying_ends_the_wait_of_those_concerned_only() -> None:
    courier = Courier()
    mine, other = Parcel("x", 1), Parcel("y", 1)
    courier.push(mine, other)
    await settle()
    await courier.finish(mine, pause_seconds=3600)
    await courier.finish(other, pause_seconds=3600)
    courier.urgent = {mine}
    courier.lanes.hurry()
    await settle()
    assert courier.running == [mine]
    await courier.lanes.close()


async def test_a_closed_gate_holds_back_its_channel_and_no_other() -> None:
    courier = Courier(channels=("a", "b"))
    courier.closed = {"a"}
    held, other = Parcel("x", 1, "a"), Parcel("y", 1, "b")
    courier.push(held, other)
    await settle()
    assert courier.running == [other]
    courier.closed.clear()
    courier.lanes.pump()
    await settle()
    assert courier.running == [other, held]
    assert courier.started == ["b", "a"]
    await courier.lanes.close()


async def test_what_is_urgent_passes_a_closed_gate() -> None:
    courier = Courier()
    courier.closed = {"a"}
    urgent, behind, other = Parcel("x", 1), Parcel("x", 2), Parcel("y", 1)
    courier.push(urgent, behind, other)
    courier.urgent = {urgent}
    courier.lanes.hurry()
    await settle()
    assert courier.running == [urgent]
    await courier.finish(urgent)
    assert courier.running == []
    assert courier.started == []
    await courier.lanes.close()


async def test_a_delivery_that_may_not_begin_is_dropped_and_the_next_is_asked() -> None:
    courier = Courier()
    first, second = Parcel("x", 1), Parcel("x", 2)
    courier.may_begin = lambda parcel: parcel is second
    courier.push(first, second)
    await settle()
    assert courier.dropped == [first]
    assert courier.running == [second]
    await courier.lanes.close()


async def test_a_lane_that_is_empty_takes_no_memory() -> None:
    courier = Courier()
    parcel = Parcel("x", 1)
    courier.push(parcel)
    await settle()
    await courier.finish(parcel)
    assert courier.lanes._lanes == {}
    assert courier.slots.in_use == 0


async def test_a_defect_in_one_delivery_parks_its_lane_and_stops_nobody() -> None:
    courier = Courier()
    broken, fine = Parcel("x", 1), Parcel("y", 1)
    courier.push(broken, fine)
    await settle()
    courier._verdicts[id(broken)].set_exception(RuntimeError("a defect"))
    await settle()
    await courier.finish(fine)
    assert courier.ended == [fine]
    assert courier.lanes.depth("x") == 1
    assert courier.slots.in_use == 0
    await courier.lanes.close()


async def test_with_all_slots_of_one_channel_taken_another_still_runs() -> None:
    courier = Courier(concurrency=4, channels=("a", "b"))
    greedy = [Parcel(f"a{number}", number, "a") for number in range(10)]
    courier.push(*greedy, Parcel("b", 1, "b"))
    await settle()
    assert sum(parcel.slot == "a" for parcel in courier.running) == 3
    assert sum(parcel.slot == "b" for parcel in courier.running) == 1
    await courier.lanes.close()


@pytest.mark.parametrize("concurrency", [1, 3, 50])
async def test_everything_ends_in_the_order_of_its_lane_whatever_fails_in_between(concurrency: int) -> None:
    chance = iter(range(10_000))

    async def attempt(_: Parcel) -> float | None:
        await asyncio.sleep(0)
        return 0.0 if next(chance) % 3 == 0 else None

    order: dict[str, list[int]] = defaultdict(list)
    all_ended = asyncio.Event()

    def end(parcel: Parcel) -> None:
        order[parcel.lane].append(parcel.number)
        if sum(map(len, order.values())) == 300:
            all_ended.set()

    lanes: Lanes[Parcel] = Lanes(
        Slots(concurrency, {"a": concurrency}, clock=lambda: 0.0),
        attempt=attempt,
        begin=lambda _: True,
        ended=end,
        dropped=lambda _: None,
    )
    for number in range(300):
        lanes.push(Parcel(f"lane {number % 7}", number))
    lanes.pump()
    await asyncio.wait_for(all_ended.wait(), 10)
    assert all(numbers == sorted(numbers) for numbers in order.values())
    await lanes.close()


async def test_the_gate_is_told_when_a_delivery_stops_however_it_went() -> None:
    courier = Courier()
    first, second = Parcel("x", 1), Parcel("y", 2)
    courier.push(first, second)
    await settle()
    await courier.finish(first)
    await courier.finish(second, 60.0)
    assert courier.stopped == [first, second]
    await courier.lanes.close()


async def test_a_channel_waits_while_a_lane_of_it_could_start() -> None:
    courier = Courier(channels=("a", "b"))
    courier.closed = {"a"}
    courier.push(Parcel("x", 1))
    assert courier.lanes.is_waiting("a")
    assert not courier.lanes.is_waiting("b")
    courier.closed.clear()
    courier.lanes.pump()
    assert not courier.lanes.is_waiting("a")
    await courier.lanes.close()
