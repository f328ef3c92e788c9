"""From records to lanes and back to offsets: the event-loop half of the consumer.

A record that arrives becomes a journey in its partition's backlog. It is admitted, in offset order, while its lanes
and the partition's gap are small enough for a hand-over to finish in time; then its deliveries enter their lanes. When
the last of them has ended, the offset is complete. A hand-over drops the backlog, starts nothing above the highest
started offset, finishes what lies below, and tells the poll thread, which commits and fences.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from tocsin_consumer import metrics
from tocsin_consumer.dead_letters import Burial, BurialReason
from tocsin_consumer.delivery import Deliverer
from tocsin_consumer.journey import Delivery, Journey, LaneKey
from tocsin_consumer.lanes import Lanes
from tocsin_consumer.pace import Pace
from tocsin_consumer.slots import Slots
from tocsin_core.assignment import Assignment
from tocsin_core.codec import accepted_at_of, decode, trace_id_of
from tocsin_core.errors import MessageError
from tocsin_core.logging import get_logger
from tocsin_core.message import Notification, Record

_log = get_logger(__name__)


class Engine:
    """Works on the records of all partitions this process owns. Everything here runs on the event loop."""

    def __init__(
        self, deliverer: Deliverer, *, channels: Sequence[str], slots: Slots, pace: Pace, max_attempts: int
    ) -> None:
        self._deliverer = deliverer
        self._channels = tuple(channels)
        self._pace = pace
        self._max_attempts = max_attempts
        self._owned: set[Assignment] = set()
        self._backlogs: dict[Assignment, deque[Journey]] = {}
        self._drains: dict[Assignment, asyncio.Event] = {}
        self._drain_deadline = 0.0
        self._lanes: Lanes[Delivery] = Lanes(
            slots, attempt=self._attempt, begin=self._begin, ended=self._ended, dropped=self._dropped
        )

    def accept(self, batch: Sequence[tuple[Assignment, Record]]) -> None:
        """Take in what one poll brought."""
        self._forget_fenced()
        arrivals = {assignment for assignment, _ in batch}
        self._owned |= {assignment for assignment in arrivals if _is_open(assignment)}
        for assignment, record in batch:
            if _is_open(assignment):
                self._backlogs.setdefault(assignment, deque()).append(self._plan(assignment, record))
            else:
                assignment.finish(record)
        for assignment in arrivals:
            self._admit(assignment)
        self._lanes.pump()

    async def drain(self, assignments: Sequence[Assignment], budget_seconds: float) -> None:
        """Finish what has started on these partitions and whatever lies below; start nothing above.

        Return when that is done or the budget is used up.
        """
        self._drain_deadline = asyncio.get_running_loop().time() + budget_seconds
        for assignment in assignments:
            self._begin_drain(assignment)
        self._lanes.hurry(lambda delivery: delivery.journey.assignment in self._drains)
        try:
            async with asyncio.timeout(budget_seconds):
                for assignment in assignments:
                    await self._drains[assignment].wait()
        except TimeoutError:
            again = sum(assignment.tracker.finished_beyond for assignment in assignments)
            _log.warning("partitions were handed over unfinished", budget_seconds=budget_seconds, delivered_again=again)
        finally:
            for assignment in assignments:
                self._drains.pop(assignment, None)

    async def close(self) -> None:
        """Cancel what still runs."""
        await self._lanes.close()

    def _forget_fenced(self) -> None:
        for assignment in [assignment for assignment in self._owned if assignment.tracker.is_fenced]:
            self._owned.discard(assignment)
            self._backlogs.pop(assignment, None)

    def _begin_drain(self, assignment: Assignment) -> None:
        assignment.tracker.begin_drain()
        self._owned.discard(assignment)
        for journey in self._backlogs.pop(assignment, ()):
            assignment.finish(journey.record)
        self._drains[assignment] = asyncio.Event()
        self._notice_drained(assignment)

    def _notice_drained(self, assignment: Assignment) -> None:
        drain = self._drains.get(assignment)
        if drain is not None and assignment.tracker.is_drained:
            drain.set()

    def _plan(self, assignment: Assignment, record: Record) -> Journey:
        journey = Journey(
            assignment=assignment,
            record=record,
            notification=None,
            trace_id=trace_id_of(record.header("traceparent")),
            accepted_at=accepted_at_of(record, now=datetime.now(UTC)),
        )
        try:
            journey.notification = decode(record.value)
        except MessageError as error:
            journey.deliveries = (self._plan_burial(journey, error),)
        else:
            journey.deliveries = self._plan_deliveries(journey, journey.notification)
        journey.remaining = len(journey.deliveries)
        return journey

    def _plan_deliveries(self, journey: Journey, notification: Notification) -> tuple[Delivery, ...]:
        key = notification.to_id.encode() if journey.record.key is None else journey.record.key
        return tuple(
            Delivery(
                journey=journey,
                channel=channel,
                slot=channel if channel in self._channels else self._channels[0],
                lane=LaneKey(journey.assignment.epoch, key, channel),
            )
            for channel in dict.fromkeys(notification.channels or self._channels)
        )

    def _plan_burial(self, journey: Journey, error: MessageError) -> Delivery:
        now = datetime.now(UTC)
        return Delivery(
            journey=journey,
            channel="",
            slot=self._channels[0],
            lane=LaneKey(journey.assignment.epoch, journey.record.key or b"", ""),
            burial=Burial(
                reason=BurialReason.UNDECODABLE,
                error_class=type(error).__name__,
                error_message=str(error),
                channel="",
                attempts=0,
                first_failed_at=now,
                last_failed_at=now,
            ),
        )

    def _admit(self, assignment: Assignment) -> None:
        backlog = self._backlogs.get(assignment)
        while backlog and self._has_room(backlog[0]):
            journey = backlog.popleft()
            assignment.tracker.admit(journey.record.offset)
            for delivery in journey.deliveries:
                self._lanes.push(delivery)
            journey.deliveries = ()  # its lanes hold them now; a cycle would keep a finished journey in memory
        if not backlog:
            self._backlogs.pop(assignment, None)

    def _has_room(self, journey: Journey) -> bool:
        tracker = journey.assignment.tracker
        if tracker.is_fenced or tracker.gap >= self._pace.gap_limit(len(self._owned)):
            return False
        return all(
            self._lanes.depth(delivery.lane) < self._pace.lane_limit(delivery.slot) for delivery in journey.deliveries
        )

    def _begin(self, delivery: Delivery) -> bool:
        assignment, offset = delivery.journey.assignment, delivery.journey.record.offset
        if not assignment.tracker.may_start(offset):
            return False
        assignment.tracker.start(offset)
        if delivery.started_at is None:
            delivery.started_at = asyncio.get_running_loop().time()
        return True

    async def _attempt(self, delivery: Delivery) -> float | None:
        pause_seconds = await self._deliverer.attempt(delivery)
        if pause_seconds is None or not delivery.journey.assignment.tracker.is_draining:
            return pause_seconds
        # A hand-over has a deadline: what is left of it is shared among the attempts that are left.
        remaining_seconds = max(0.0, self._drain_deadline - asyncio.get_running_loop().time())
        return min(pause_seconds, remaining_seconds / max(1, self._max_attempts - delivery.attempts + 1))

    def _ended(self, delivery: Delivery) -> None:
        if delivery.started_at is not None:
            self._pace.observe(delivery.slot, asyncio.get_running_loop().time() - delivery.started_at)
        self._leave(delivery.journey)

    def _dropped(self, delivery: Delivery) -> None:
        delivery.journey.is_dropped = True
        self._leave(delivery.journey)

    def _leave(self, journey: Journey) -> None:
        assignment = journey.assignment
        journey.remaining -= 1
        if journey.remaining == 0:
            assignment.finish(journey.record)
            if not (journey.is_dropped or assignment.tracker.is_fenced):
                assignment.tracker.complete(journey.record.offset)
                metrics.PROCESSED.inc()
                self._notice_drained(assignment)
        self._admit(assignment)


def _is_open(assignment: Assignment) -> bool:
    return not (assignment.tracker.is_fenced or assignment.tracker.is_draining)
