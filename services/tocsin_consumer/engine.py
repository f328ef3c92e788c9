"""From records to lanes and back to offsets: the event-loop half of the consumer.

A record that arrives becomes a journey, and a leg of it goes to each channel's cursor in its partition. A leg is
admitted, in offset order, when its time has come and while its lanes and the cursor's gap are small enough for a
hand-over to finish in time; then its deliveries enter their lanes. When the last of them has ended, the offset is
complete on that cursor. A hand-over drops the backlogs, starts nothing above the highest started offset of each
cursor, finishes what lies below, and tells the poll thread, which commits and fences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from tocsin_consumer import metrics
from tocsin_consumer.cursor import Cursor, Partition
from tocsin_consumer.delivery import Deliverer
from tocsin_consumer.journey import Delivery, Journey, Leg, build_journey, build_leg
from tocsin_consumer.lanes import Gate, Lanes
from tocsin_consumer.pace import Pace
from tocsin_consumer.planning import Plan, plan_record
from tocsin_consumer.slots import Slots
from tocsin_core.assignment import Assignment, size_bytes
from tocsin_core.complaints import Complaints
from tocsin_core.errors import KafkaFailure
from tocsin_core.logging import get_logger
from tocsin_core.message import Record
from tocsin_core.reader import Stretch
from tocsin_core.retry import Tier

READ_AGAIN_SECONDS = 1.0

_log = get_logger(__name__)


class StretchReader(Protocol):
    """Reads a stretch of a partition, for a cursor that fell behind."""

    async def read(self, topic: str, partition: int, start: int, *, max_records: int, max_bytes: int) -> Stretch:
        """Return what follows `start`, no more than that and one record. Raise KafkaFailure."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one cursor may hold, in a process that owns so many partitions; poll and engine share the numbers."""

    max_held_records: int
    max_held_bytes: int
    batch_records: int
    batch_bytes: int
    min_share_records: int
    min_share_bytes: int

    def is_full(self, cursor: Cursor, partitions: int) -> bool:
        """Return whether a cursor holds more than what the poll thread lets every cursor have."""
        batch_bytes = max(self.min_share_bytes, self.batch_bytes // max(1, partitions))
        return (
            cursor.held_records >= self.share(partitions) + self.batch_records
            or cursor.held_bytes >= self.share_bytes(partitions) + batch_bytes
        )

    def is_low(self, cursor: Cursor, partitions: int) -> bool:
        """Return whether a cursor has so little left that it should read on."""
        return (
            cursor.held_records <= self.share(partitions) / 2 and cursor.held_bytes <= self.share_bytes(partitions) / 2
        )

    def share(self, partitions: int) -> int:
        """Return how many records fetching waits for in each partition."""
        return max(self.min_share_records, self.max_held_records // max(1, partitions))

    def share_bytes(self, partitions: int) -> int:
        """Return how many bytes of records fetching waits for in each partition."""
        return max(self.min_share_bytes, self.max_held_bytes // max(1, partitions))


class Engine:
    """Works on the records of all partitions this process owns. Everything here runs on the event loop."""

    def __init__(
        self,
        deliverer: Deliverer,
        *,
        channels: Sequence[str],
        slots: Slots,
        pace: Pace,
        max_attempts: int,
        bounds: Bounds,
        reader: StretchReader,
        gate: Gate | None = None,
        tiers: Sequence[Tier] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._deliverer = deliverer
        self._channels = tuple(channels)
        self._pace = pace
        self._max_attempts = max_attempts
        self._bounds = bounds
        self._reader = reader
        self._retry_delays_seconds = {tier.topic: tier.delay_seconds for tier in tiers}
        self._now = now
        self._partitions: dict[Assignment, Partition] = {}
        self._drains: dict[Assignment, asyncio.Event] = {}
        self._drain_deadline = 0.0
        self._touched: dict[Cursor, None] = {}
        """Cursors to look after once in this turn of the loop, however many of their deliveries have ended."""
        self._is_move_due = False
        self._complaints = Complaints(_log.warning)
        self._lanes: Lanes[Delivery] = Lanes(
            slots,
            attempt=self._attempt,
            begin=self._begin,
            ended=self._ended,
            dropped=self._dropped,
            gate=gate,
            is_urgent=self._is_urgent,
        )

    @property
    def held_records(self) -> int:
        """Return how many records are in memory, counted once for every channel that holds them."""
        return sum(partition.held_records for partition in self._partitions.values())

    def accept(self, batch: Sequence[tuple[Assignment, Record]]) -> None:
        """Take in what one poll brought."""
        self._forget_fenced()
        fed: dict[Partition, None] = {}
        for assignment, record in batch:
            record_bytes = size_bytes(record)
            assignment.take(record_bytes)
            partition = self._open(assignment, record.offset)
            if partition is not None:
                self._feed(partition, record, record_bytes)
                fed[partition] = None
        for partition in fed:
            self._touched |= dict.fromkeys(partition.cursors.values())
        self._move_on()

    def is_waiting(self, channel: str) -> bool:
        """Return whether a delivery of the channel could start, were there a slot and an open gate."""
        return self._lanes.is_waiting(channel)

    def pump(self) -> None:
        """Start what may start now: a gate has opened."""
        self._lanes.pump()

    async def drain(self, assignments: Sequence[Assignment], budget_seconds: float) -> None:
        """Finish what has started on these partitions and whatever lies below; start nothing above.

        Return when that is done or the budget is used up.
        """
        self._drain_deadline = asyncio.get_running_loop().time() + budget_seconds
        for assignment in assignments:
            self._begin_drain(assignment)
        self._lanes.hurry()
        try:
            async with asyncio.timeout(budget_seconds):
                for assignment in assignments:
                    await self._drains[assignment].wait()
        except TimeoutError:
            again = sum(assignment.finished_beyond for assignment in assignments)
            _log.warning("partitions were handed over unfinished", budget_seconds=budget_seconds, delivered_again=again)
        finally:
            for assignment in assignments:
                self._drains.pop(assignment, None)

    async def close(self) -> None:
        """Cancel what still runs."""
        for partition in self._partitions.values():
            partition.drop_backlog()
        self._partitions.clear()
        await self._lanes.close()

    def _open(self, assignment: Assignment, first_offset: int) -> Partition | None:
        """Return the partition of an assignment that is still ours, or None."""
        if assignment.is_fenced or assignment.is_draining:
            return None
        partition = self._partitions.get(assignment)
        if partition is None:
            partition = self._partitions[assignment] = Partition(assignment, self._channels, first_offset)
        return partition

    def _forget_fenced(self) -> None:
        fenced = [assignment for assignment in self._partitions if assignment.is_fenced]
        for assignment in fenced:
            self._partitions.pop(assignment).drop_backlog()
        if fenced:
            self._lanes.hurry()

    def _begin_drain(self, assignment: Assignment) -> None:
        assignment.begin_drain()
        partition = self._partitions.pop(assignment, None)
        if partition is not None:
            partition.drop_backlog()
        self._drains[assignment] = asyncio.Event()
        self._notice_drained(assignment)

    def _notice_drained(self, assignment: Assignment) -> None:
        drain = self._drains.get(assignment)
        if drain is not None and assignment.is_drained:
            drain.set()

    def _is_urgent(self, delivery: Delivery) -> bool:
        assignment = delivery.leg.journey.assignment
        return assignment.is_fenced or assignment in self._drains

    def _feed(self, partition: Partition, record: Record, record_bytes: int) -> None:
        """Give a record that the partition brought to every cursor that is fed by it."""
        partition.next_offset = record.offset + 1
        hungry = []
        for cursor in partition.cursors.values():
            cursor.passed_before += record.offset < cursor.began_at
            if cursor.is_detached or record.offset < cursor.next_offset:
                continue
            if cursor.held_records and self._bounds.is_full(cursor, len(self._partitions)):
                cursor.is_detached = True
            else:
                hungry.append(cursor)
        if not hungry:
            return
        plan = self._plan(record)
        journey = build_journey(partition.assignment, record, record_bytes, plan)
        for cursor in hungry:
            self._give(cursor, journey, plan)

    def _plan(self, record: Record) -> Plan:
        delay_seconds = self._retry_delays_seconds.get(record.topic)
        return plan_record(record, channels=self._channels, now=self._now(), retry_delay_seconds=delay_seconds)

    def _give(self, cursor: Cursor, journey: Journey, plan: Plan) -> None:
        offset = journey.record.offset
        cursor.next_offset = offset + 1
        channels = plan.channels.get(cursor.channel, ())
        if not channels and not cursor.backlog:
            cursor.tracker.skip(offset)
        else:
            cursor.hold(build_leg(cursor, journey, channels, plan))

    def _admit(self, cursor: Cursor) -> None:
        if cursor.backlog and not (cursor.tracker.is_fenced or cursor.tracker.is_draining):
            self._admit_backlog(cursor)
        if cursor.is_detached:
            self._read_on(cursor)

    def _admit_backlog(self, cursor: Cursor) -> None:
        backlog, tracker = cursor.backlog, cursor.tracker
        gap_limit = self._pace.gap_limit(cursor.channel, len(self._partitions))
        lane_limit = self._pace.lane_limit(cursor.channel)
        while backlog and tracker.gap < gap_limit and self._may_admit(cursor, backlog[0], lane_limit):
            leg = backlog.popleft()
            if not leg.deliveries:
                tracker.skip(leg.journey.record.offset)
                cursor.let_go(leg)
                continue
            tracker.admit(leg.journey.record.offset)
            for delivery in leg.deliveries:
                self._lanes.push(delivery)
            leg.deliveries = ()  # its lanes hold them now; a cycle would keep a finished journey in memory

    def _may_admit(self, cursor: Cursor, leg: Leg, lane_limit: int) -> bool:
        for delivery in leg.deliveries:
            if self._lanes.depth(delivery.lane) >= lane_limit:
                return False
        return self._is_due(cursor, leg)

    def _is_due(self, cursor: Cursor, leg: Leg) -> bool:
        not_before = leg.journey.not_before
        if not_before is None or not leg.deliveries:
            return True
        wait_seconds = (not_before - self._now()).total_seconds()
        if wait_seconds <= 0:
            return True
        if cursor.timer is None:
            cursor.timer = asyncio.get_running_loop().call_later(wait_seconds, self._wake, cursor)
        return False

    def _wake(self, cursor: Cursor) -> None:
        cursor.timer = None
        self._touch(cursor)

    def _touch(self, cursor: Cursor) -> None:
        self._touched[cursor] = None
        if not self._is_move_due:
            self._is_move_due = True
            asyncio.get_running_loop().call_soon(self._move_on)

    def _move_on(self) -> None:
        """Admit what the touched cursors have room for, and start it."""
        self._is_move_due = False
        touched, self._touched = self._touched, {}
        for cursor in touched:
            self._admit(cursor)
        for assignment in {cursor.assignment for cursor in touched}:
            partition = self._partitions.get(assignment)
            if partition is not None and (processed := partition.publish()):
                metrics.PROCESSED.inc(processed)
        self._lanes.pump()

    def _read_on(self, cursor: Cursor) -> None:
        partition = self._partitions.get(cursor.assignment)
        if partition is None or cursor.refill is not None or not self._bounds.is_low(cursor, len(self._partitions)):
            return
        cursor.refill = asyncio.get_running_loop().create_task(self._refill(partition, cursor))

    async def _refill(self, partition: Partition, cursor: Cursor) -> None:
        assignment = cursor.assignment
        try:
            stretch = await self._read_stretch(cursor)
            if assignment in self._partitions and not assignment.is_fenced:
                self._catch_up(partition, cursor, stretch)
        except Exception as error:  # noqa: BLE001 - whatever it is: a channel must not stand still for ever because of it
            reason = str(error) if isinstance(error, KafkaFailure) else f"{type(error).__name__}: {error}"
            self._complaints.about("a channel that fell behind cannot read on yet", reason, channel=cursor.channel)
            await asyncio.sleep(READ_AGAIN_SECONDS)
            self._touch(cursor)
        finally:
            cursor.refill = None

    async def _read_stretch(self, cursor: Cursor) -> Stretch:
        assignment, partitions = cursor.assignment, len(self._partitions)
        return await self._reader.read(
            assignment.topic,
            assignment.partition,
            cursor.next_offset,
            max_records=self._bounds.share(partitions),
            max_bytes=max(1, self._bounds.share_bytes(partitions) - cursor.held_bytes),
        )

    def _catch_up(self, partition: Partition, cursor: Cursor, stretch: Stretch) -> None:
        for record in stretch.records:
            plan = self._plan(record)
            self._give(cursor, build_journey(cursor.assignment, record, size_bytes(record), plan), plan)
        cursor.next_offset = max(cursor.next_offset, stretch.next_offset)
        cursor.is_detached = cursor.next_offset < partition.next_offset
        self._touch(cursor)

    def _begin(self, delivery: Delivery) -> bool:
        tracker, offset = delivery.leg.cursor.tracker, delivery.leg.journey.record.offset
        if not tracker.may_start(offset):
            return False
        tracker.start(offset)
        if delivery.started_at is None:
            delivery.started_at = asyncio.get_running_loop().time()
        return True

    async def _attempt(self, delivery: Delivery) -> float | None:
        pause_seconds = await self._deliverer.attempt(delivery)
        if pause_seconds is None or delivery.leg.journey.assignment not in self._drains:
            return pause_seconds
        remaining_seconds = max(0.0, self._drain_deadline - asyncio.get_running_loop().time())
        if pause_seconds >= remaining_seconds and await self._deliverer.hand_over(delivery):
            return None
        # A hand-over has a deadline: what is left of it is shared among the attempts that are left.
        return min(pause_seconds, remaining_seconds / max(1, self._max_attempts - delivery.attempts + 1))

    def _ended(self, delivery: Delivery) -> None:
        if delivery.started_at is not None:
            self._pace.observe(delivery.slot, asyncio.get_running_loop().time() - delivery.started_at)
        self._leave(delivery.leg)

    def _dropped(self, delivery: Delivery) -> None:
        delivery.leg.is_dropped = True
        self._leave(delivery.leg)

    def _leave(self, leg: Leg) -> None:
        leg.remaining -= 1
        if leg.remaining:
            return
        cursor = leg.cursor
        cursor.let_go(leg)
        if not (leg.is_dropped or cursor.tracker.is_fenced):
            cursor.tracker.complete(leg.journey.record.offset)
            self._notice_drained(cursor.assignment)
        self._touch(cursor)
