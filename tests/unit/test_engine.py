"""The engine: from records to lanes, from ends to offsets, and the hand-over."""

from __future__ import annotations

import asyncio
import random

import pytest

from tocsin_consumer.engine import Engine
from tocsin_consumer.journey import Delivery
from tocsin_consumer.pace import Pace
from tocsin_consumer.slots import Slots
from tocsin_core.assignment import Assignment
from tocsin_core.message import Record


class Provider:
    """Takes deliveries one by one, when the test lets it."""

    def __init__(self) -> None:
        self.attempted: list[tuple[str, int]] = []
        self.gate = asyncio.Event()
        self.held_offsets: set[int] = set()

    async def attempt(self, delivery: Delivery) -> float | None:
        offset = delivery.journey.record.offset
        self.attempted.append((delivery.channel, offset))
        if offset in self.held_offsets:
            await self.gate.wait()
        return None


def make_engine(
    provider: Provider, *, concurrency: int = 4, channels: tuple[str, ...] = ("a",), max_gap: int = 1000
) -> Engine:
    return Engine(
        provider,  # type: ignore[arg-type]  # the engine asks a deliverer for one method
        channels=channels,
        slots=Slots(concurrency, channels, clock=lambda: 0.0),
        pace=Pace(channels, concurrency=concurrency, budget_seconds=1e6, max_gap=max_gap),
        max_attempts=3,
    )


def make_record(offset: int, to_id: str = "2", channels: str = "") -> Record:
    value = f'{{"id":"n{offset}","fromID":"1","toID":"{to_id}","message":"hi"{channels}}}'
    return Record("t", 0, offset, 0, to_id.encode(), value.encode(), ())


def accept(engine: Engine, assignment: Assignment, *records: Record) -> None:
    for record in records:
        assignment.receive(record)
    engine.accept([(assignment, record) for record in records])


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def assignment() -> Assignment:
    return Assignment("t", 0, 1)


async def test_an_offset_is_complete_when_its_last_channel_has_ended(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider, channels=("a", "b"))
    provider.held_offsets = {0}
    accept(engine, assignment, make_record(0))
    await settle()
    assert assignment.tracker.position is None
    provider.gate.set()
    await settle()
    assert sorted(provider.attempted) == [("a", 0), ("b", 0)]
    assert assignment.tracker.position == 1
    assert assignment.held_records == 0


async def test_a_channel_named_twice_is_used_once(provider: Provider, assignment: Assignment) -> None:
    engine = make_engine(provider, channels=("a", "b"))
    accept(engine, assignment, make_record(0, channels=',"channels":["b","b"]'))
    await settle()
    assert provider.attempted == [("b", 0)]


async def test_records_that_came_without_a_key_are_ordered_by_their_recipient(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider)
    provider.held_offsets = {0}
    records = [make_record(0, "2"), make_record(1, "2"), make_record(2, "3")]
    accept(engine, assignment, *(record._replace(key=None) for record in records))
    await settle()
    assert provider.attempted == [("a", 0), ("a", 2)]
    await engine.close()


async def test_no_more_is_admitted_than_the_gap_allows(provider: Provider, assignment: Assignment) -> None:
    engine = make_engine(provider, max_gap=3)
    provider.held_offsets = {0}
    accept(engine, assignment, *(make_record(offset, str(offset)) for offset in range(10)))
    await settle()
    assert [offset for _, offset in provider.attempted] == [0, 1, 2]
    provider.gate.set()
    await settle()
    assert assignment.tracker.position == 10


async def test_a_hand_over_finishes_what_lies_below_and_starts_nothing_above(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider, concurrency=2)
    provider.held_offsets = {0, 2}
    # One recipient has 0 and 1, another 2 and 3: with 0 and 2 under way, 1 must still be sent and 3 must not.
    recipients = {0: "x", 1: "x", 2: "y", 3: "y"}
    accept(engine, assignment, *(make_record(offset, to_id) for offset, to_id in recipients.items()))
    await settle()
    drain = asyncio.create_task(engine.drain([assignment], 5.0))
    await settle()
    assert not drain.done()
    provider.gate.set()
    await drain
    assert sorted(offset for _, offset in provider.attempted) == [0, 1, 2]
    assert assignment.tracker.position == 3
    assert assignment.tracker.finished_beyond == 0


async def test_a_hand_over_with_nothing_under_way_is_over_at_once(provider: Provider, assignment: Assignment) -> None:
    await asyncio.wait_for(make_engine(provider).drain([assignment], 60.0), 1.0)


async def test_a_hand_over_ends_with_its_budget(provider: Provider, assignment: Assignment) -> None:
    engine = make_engine(provider)
    provider.held_offsets = {0}
    accept(engine, assignment, make_record(0))
    await settle()
    await asyncio.wait_for(engine.drain([assignment], 0.05), 5.0)
    assert assignment.tracker.position is None
    await engine.close()


async def test_what_arrives_after_the_hand_over_began_is_left_to_the_next_owner(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider)
    await engine.drain([assignment], 1.0)
    accept(engine, assignment, make_record(0))
    await settle()
    assert provider.attempted == []
    assert assignment.held_records == 0


async def test_a_lost_partition_is_not_worked_on_and_leaves_its_lanes(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider, concurrency=1)
    provider.held_offsets = {0}
    accept(engine, assignment, *(make_record(offset, str(offset)) for offset in range(5)))
    await settle()
    assignment.tracker.fence()
    provider.gate.set()
    await settle()
    assert [offset for _, offset in provider.attempted] == [0]
    assert assignment.tracker.position is None
    assert assignment.held_records == 0


async def test_a_new_epoch_of_a_partition_does_not_wait_for_the_old_one(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider)
    provider.held_offsets = {0}
    accept(engine, assignment, make_record(0))
    await settle()
    assignment.tracker.fence()
    successor = Assignment("t", 0, 2)
    accept(engine, successor, make_record(1))
    await settle()
    assert provider.attempted == [("a", 0), ("a", 1)]
    await engine.close()


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_the_order_of_ends_everything_is_delivered_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    order: dict[str, list[int]] = {}
    all_sent = asyncio.Event()

    class Erratic(Provider):
        async def attempt(self, delivery: Delivery) -> float | None:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                return 0.0
            record = delivery.journey.record
            order.setdefault(str(record.key), []).append(record.offset)
            if sum(map(len, order.values())) == 900:
                all_sent.set()
            return None

    engine = make_engine(Erratic(), concurrency=7)
    assignments = [Assignment("t", number, number) for number in range(3)]
    for start in range(0, 300, 25):
        for assignment in assignments:
            accept(
                engine,
                assignment,
                *(make_record(offset, f"{assignment.partition}-{offset % 9}") for offset in range(start, start + 25)),
            )
        await settle()
    await asyncio.wait_for(all_sent.wait(), 10)
    await settle()
    assert [assignment.tracker.position for assignment in assignments] == [300, 300, 300]
    assert sum(map(len, order.values())) == 900
    assert all(offsets == sorted(offsets) for offsets in order.values())
