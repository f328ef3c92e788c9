"""The engine: from records to lanes, from ends to offsets, and the hand-over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tocsin_consumer import metrics
from tocsin_consumer.cursor import Cursor
from tocsin_consumer.engine import Bounds, Engine
from tocsin_consumer.journey import Delivery
from tocsin_consumer.pace import Pace
from tocsin_consumer.planning import Plan, plan_record
from tocsin_consumer.slots import Slots
from tocsin_core.assignment import Assignment, decide_pause, size_bytes
from tocsin_core.commits import Commit
from tocsin_core.errors import KafkaUnavailable
from tocsin_core.message import Record
from tocsin_core.offsets import OffsetTracker
from tocsin_core.reader import Stretch
from tocsin_core.retry import Tier, build_tiers
from tocsin_core.retry_record import Deferral, build_retry_headers


class Provider:
    """Takes deliveries one by one, when the test lets it."""

    def __init__(self) -> None:
        self.attempted: list[tuple[str, int]] = []
        self.gate = asyncio.Event()
        self.held_offsets: set[int] = set()
        self.held_channels: set[str] = set()
        self.pause_seconds: float | None = None
        self.handed_over: list[int] = []

    async def hand_over(self, delivery: Delivery) -> bool:
        self.handed_over.append(delivery.journey.record.offset)
        return True

    async def attempt(self, delivery: Delivery) -> float | None:
        offset = delivery.journey.record.offset
        self.attempted.append((delivery.channel, offset))
        if offset in self.held_offsets or delivery.channel in self.held_channels:
            await self.gate.wait()
        return self.pause_seconds

    def offsets(self, channel: str) -> list[int]:
        return [offset for name, offset in self.attempted if name == channel]


class Log:
    """A partition that can be read again, as often as the broker allows it."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.reads: list[int] = []
        self.failures: list[Exception] = []

    async def read(self, topic: str, partition: int, start: int, *, max_records: int, max_bytes: int) -> Stretch:
        del topic, partition
        self.reads.append(start)
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop()
        found: list[Record] = []
        for record in [each for each in self.records if each.offset >= start][:max_records]:
            if sum(map(size_bytes, found)) < max_bytes:
                found.append(record)
        return Stretch(found, found[-1].offset + 1 if found else start)


def make_bounds(held: int = 1000, *, held_bytes: int = 10**9, batch_bytes: int = 10**9) -> Bounds:
    return Bounds(
        max_held_records=held,
        max_held_bytes=held_bytes,
        batch_records=held,
        batch_bytes=batch_bytes,
        min_share_records=1,
        min_share_bytes=1,
    )


def make_engine(
    provider: Provider,
    *,
    concurrency: int = 4,
    channels: tuple[str, ...] = ("a",),
    max_gap: int = 1000,
    held: int = 1000,
    log: Log | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    tiers: tuple[Tier, ...] = (),
    bounds: Bounds | None = None,
) -> Engine:
    slots = Slots(concurrency, dict.fromkeys(channels, concurrency), clock=lambda: 0.0)
    return Engine(
        provider,  # type: ignore[arg-type]  # the engine asks a deliverer for one method
        channels=channels,
        slots=slots,
        pace=Pace(slots.guaranteed, budget_seconds=1e6, max_gap=max_gap),
        max_attempts=3,
        bounds=bounds or make_bounds(held),
        reader=log or Log(),
        now=now,
        tiers=tiers,
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


async def settle_until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 - what is waited for is a number, which has no event
            await asyncio.sleep(0.005)


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
    assert assignment.cursors["b"].position == 0
    provider.gate.set()
    await settle()
    assert sorted(provider.attempted) == [("a", 0), ("b", 0)]
    assert assignment.commit == Commit(1)
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
    assert assignment.commit == Commit(10)


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
    assert assignment.commit == Commit(3, '{"":1,"a":0}')
    assert assignment.finished_beyond == 0


async def test_a_hand_over_with_nothing_under_way_is_over_at_once(provider: Provider, assignment: Assignment) -> None:
    await asyncio.wait_for(make_engine(provider).drain([assignment], 60.0), 1.0)


async def test_a_hand_over_ends_with_its_budget(provider: Provider, assignment: Assignment) -> None:
    engine = make_engine(provider)
    provider.held_offsets = {0}
    accept(engine, assignment, make_record(0))
    await settle()
    await asyncio.wait_for(engine.drain([assignment], 0.05), 5.0)
    assert assignment.cursors["a"].position == 0
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
    assignment.fence()
    provider.gate.set()
    await settle()
    assert [offset for _, offset in provider.attempted] == [0]
    assert assignment.cursors["a"].position == 0
    assert assignment.held_records == 0


async def test_a_partition_lost_while_its_batch_is_taken_in_breaks_nothing(
    provider: Provider, assignment: Assignment
) -> None:
    moment = datetime.now(UTC)

    def lose_it() -> datetime:  # the poll thread does, at any moment
        assignment.fence()
        return moment

    engine = make_engine(provider, now=lose_it)
    accept(engine, assignment, *(make_record(offset, str(offset)) for offset in range(5)))
    await settle()
    assert provider.attempted == []
    successor = Assignment("t", 0, 2)
    accept(engine, successor, make_record(0))
    await settle()
    assert assignment.held_records == 0
    await engine.close()


async def test_a_new_epoch_of_a_partition_does_not_wait_for_the_old_one(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider)
    provider.held_offsets = {0}
    accept(engine, assignment, make_record(0))
    await settle()
    assignment.fence()
    successor = Assignment("t", 0, 2)
    accept(engine, successor, make_record(1))
    await settle()
    assert provider.attempted == [("a", 0), ("a", 1)]
    await engine.close()


async def test_a_channel_that_waits_holds_up_no_other_and_each_resumes_where_it_stood(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider, channels=("slow", "fast"))
    provider.held_channels = {"slow"}
    accept(engine, assignment, *(make_record(offset, str(offset)) for offset in range(5)))
    await settle()
    assert provider.offsets("fast") == [0, 1, 2, 3, 4]
    commit = assignment.commit
    assert commit == Commit(0, '{"":5,"fast":5,"slow":0}')
    assignment.fence()
    await engine.close()

    heir = Provider()
    engine, successor = make_engine(heir, channels=("slow", "fast")), Assignment("t", 0, 2, commit)
    accept(engine, successor, *(make_record(offset, str(offset)) for offset in range(6)))
    await settle()
    assert heir.offsets("slow") == [0, 1, 2, 3, 4, 5]
    assert heir.offsets("fast") == [5]
    assert successor.commit == Commit(6)


async def test_a_channel_that_falls_behind_reads_on_by_itself_and_catches_up(
    provider: Provider, assignment: Assignment
) -> None:
    log = Log()
    log.records = [make_record(offset, str(offset)) for offset in range(100)]
    engine = make_engine(provider, channels=("slow", "fast"), concurrency=8, held=10, log=log)
    provider.held_channels = {"slow"}
    for start in range(0, 100, 10):
        accept(engine, assignment, *log.records[start : start + 10])
        await settle()
    assert provider.offsets("fast") == list(range(100))
    assert engine.held_records == 20
    assert not log.reads
    provider.gate.set()
    await settle_until(lambda: assignment.commit == Commit(100))
    assert provider.offsets("slow") == list(range(100))
    assert log.reads == sorted(log.reads)
    more = make_record(100)
    accept(engine, assignment, more)
    await settle()
    assert provider.offsets("slow")[-1] == 100
    assert assignment.commit == Commit(101)
    assert engine.held_records == 0


async def test_fetching_waits_for_the_channel_with_least_to_do_and_for_no_other(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider, channels=("slow", "fast"))
    provider.held_channels = {"slow"}
    accept(engine, assignment, *(make_record(offset, str(offset)) for offset in range(5)))
    await settle()
    assert (assignment.held_records, assignment.held_bytes) == (0, 0)
    provider.held_channels = {"slow", "fast"}
    accept(engine, assignment, *(make_record(offset, str(offset)) for offset in range(5, 8)))
    await settle()
    assert assignment.held_records == 3
    await engine.close()


@pytest.mark.parametrize("failure", [KafkaUnavailable("away"), SystemError("a defect")])
async def test_reading_on_is_tried_again_whatever_went_wrong(
    provider: Provider, assignment: Assignment, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin_consumer.engine.READ_AGAIN_SECONDS", 0.01)
    log = Log()
    log.records = [make_record(offset, str(offset)) for offset in range(50)]
    log.failures = [failure]
    engine = make_engine(provider, channels=("slow", "fast"), held=5, log=log)
    provider.held_channels = {"slow"}
    for record in log.records:
        accept(engine, assignment, record)
        await settle()
    provider.gate.set()
    await settle_until(lambda: assignment.commit == Commit(50))
    assert provider.offsets("slow") == list(range(50))


async def test_a_channel_that_reads_on_holds_no_more_bytes_than_it_may_however_small_records_were_before(
    assignment: Assignment,
) -> None:
    held_bytes: list[int] = []

    class Watching(Provider):
        async def attempt(self, delivery: Delivery) -> float | None:
            held_bytes.append(delivery.leg.cursor.held_bytes)
            return await super().attempt(delivery)

    data = f',"data":{{"x":"{"x" * 3000}"}}'
    log, provider = Log(), Watching()
    log.records = [make_record(offset, str(offset), "" if offset < 200 else data) for offset in range(220)]
    bounds = make_bounds(held_bytes=10_000, batch_bytes=1)
    engine = make_engine(provider, channels=("slow", "fast"), log=log, bounds=bounds)
    provider.held_channels = {"slow"}
    for record in log.records:
        accept(engine, assignment, record)
        await settle()
    provider.gate.set()
    await settle_until(lambda: assignment.commit == Commit(220))
    assert provider.offsets("slow") == list(range(220))
    assert 10_000 <= max(held_bytes) < 10_000 + size_bytes(log.records[-1])


def test_what_a_batch_may_bring_is_shared_by_the_partitions_as_the_rest_is(assignment: Assignment) -> None:
    bounds = make_bounds(held_bytes=32_000, batch_bytes=16_000)
    cursor = Cursor("a", assignment, OffsetTracker())
    cursor.held_bytes = 6_000
    assert not bounds.is_full(cursor, 1)
    assert bounds.is_full(cursor, 8)


async def test_fetching_rests_while_every_channel_reads_on_by_itself(
    provider: Provider, assignment: Assignment
) -> None:
    log = Log()
    log.records = [make_record(offset, str(offset)) for offset in range(30)]
    engine = make_engine(provider, log=log, concurrency=1, bounds=make_bounds(held_bytes=300, batch_bytes=100))
    provider.held_channels = {"a"}
    accept(engine, assignment, *log.records)
    await settle()
    assert assignment.held_records < 30
    assert decide_pause(assignment, max_records=10**9, max_bytes=10**9)
    provider.gate.set()
    await settle_until(lambda: assignment.commit == Commit(30))
    assert provider.offsets("a") == list(range(30))
    assert not decide_pause(assignment, max_records=10**9, max_bytes=10**9)


async def test_a_record_waits_until_its_time_has_come_and_others_do_not_wait_for_it(
    provider: Provider, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = datetime(2026, 11, 23, 12, tzinfo=UTC)
    now = [due - timedelta(seconds=0.05)]

    def plan(record: Record, **arguments: Any) -> Plan:
        found = plan_record(record, **arguments)
        return found._replace(not_before=due) if record.offset == 0 else found

    monkeypatch.setattr("tocsin_consumer.engine.plan_record", plan)
    engine = make_engine(provider, channels=("a", "b"), now=lambda: now[0])
    accept(engine, assignment, make_record(0, "2", ',"channels":["a"]'), make_record(1, "3"))
    await settle()
    assert provider.attempted == [("b", 1)]
    now[0] = due
    await settle_until(lambda: assignment.commit == Commit(2))
    assert provider.offsets("a") == [0, 1]


async def test_records_finished_on_every_channel_are_counted_once(provider: Provider, assignment: Assignment) -> None:
    before = metrics.PROCESSED._value.get()
    engine = make_engine(provider, channels=("slow", "fast"))
    provider.held_channels = {"slow"}
    accept(engine, assignment, *(make_record(offset, str(offset)) for offset in range(5)))
    await settle()
    assert metrics.PROCESSED._value.get() == before
    provider.gate.set()
    await settle()
    assert metrics.PROCESSED._value.get() == before + 5


async def test_a_topic_made_again_is_read_from_its_beginning(provider: Provider) -> None:
    engine, assignment = make_engine(provider), Assignment("t", 0, 1, Commit(5000))
    accept(engine, assignment, make_record(0))
    await settle()
    assert provider.attempted == [("a", 0)]
    assert assignment.commit == Commit(1)


async def test_a_channel_the_pipeline_does_not_have_waits_for_no_other(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider, channels=("a",))
    provider.held_channels = {"a"}
    accept(engine, assignment, make_record(0), make_record(1, channels=',"channels":["sms","fax","sms"]'))
    await settle()
    assert sorted(provider.attempted) == [("a", 0), ("fax", 1), ("sms", 1)]
    assert assignment.commit == Commit(0, '{"":2,"a":0}')
    await engine.close()


async def test_a_replayed_dead_letter_goes_to_its_channel_alone(provider: Provider, assignment: Assignment) -> None:
    engine = make_engine(provider, channels=("a", "b"))
    accept(engine, assignment, make_record(0)._replace(headers=(("replay-channel", b"b"),)))
    await settle()
    assert provider.attempted == [("b", 0)]


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
    assert [assignment.commit for assignment in assignments] == [Commit(300)] * 3
    assert sum(map(len, order.values())) == 900
    assert all(offsets == sorted(offsets) for offsets in order.values())


async def test_what_would_wait_longer_than_a_hand_over_may_take_moves_on_instead(
    provider: Provider, assignment: Assignment
) -> None:
    engine = make_engine(provider)
    provider.pause_seconds = 60.0
    accept(engine, assignment, make_record(0))
    await settle()
    await asyncio.wait_for(engine.drain([assignment], 30.0), 5.0)
    assert provider.handed_over == [0]
    assert assignment.commit == Commit(1)


async def test_a_record_of_a_retry_topic_is_delivered_on_its_channel_alone_when_it_is_due(provider: Provider) -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    moment = [now]
    assignment = Assignment("t.retry.10s", 0, 1)
    engine = make_engine(provider, channels=("a", "b"), now=lambda: moment[0], tiers=build_tiers("t", [10]))
    due_ms = int((now + timedelta(milliseconds=20)).timestamp() * 1000)
    headers = build_retry_headers(make_record(7), Deferral("b", due_ms, 2, now, "HTTP 503"))
    stamp = int(now.timestamp() * 1000)
    accept(engine, assignment, make_record(0)._replace(topic="t.retry.10s", timestamp_ms=stamp, headers=headers))
    await settle()
    assert provider.attempted == []
    moment[0] += timedelta(seconds=1)
    await settle_until(lambda: assignment.commit == Commit(1))
    assert provider.attempted == [("b", 0)]
    await engine.close()
