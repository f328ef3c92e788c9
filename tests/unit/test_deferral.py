"""What follows a failed send where there are retry topics: which one it waits in, and what that costs it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stage import NOW, RECORD, Stage, build_deliverer, make_delivery
from tocsin_consumer.channels.base import PermanentFailure, TemporaryFailure
from tocsin_consumer.delivery import MAX_SPARED, Deliverer
from tocsin_consumer.gate import Gate
from tocsin_consumer.journey import Delivery
from tocsin_consumer.order import Behind, Free, OrderUnavailable, Place
from tocsin_core.breaker import FAILURES_IN_A_ROW
from tocsin_core.errors import KafkaUnavailable, NotAuthorized, RecordRejected, TopicMissing
from tocsin_core.retry_record import Deferred, parse_retry_record

PLACE = Place("hook", b"2", RECORD.partition, RECORD.offset)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def deferred(stage: Stage) -> Deferred:
    [record] = stage.deferred
    return parse_retry_record(record)


async def run(deliverer: Deliverer, delivery: Delivery, *, most: int = 50) -> list[float]:
    """Attempt until nothing is left to do; return the pauses."""
    pauses: list[float] = []
    while (pause := await deliverer.attempt(delivery)) is not None:
        pauses.append(pause)
        assert len(pauses) < most
    return pauses


def break_down(gate: Gate) -> None:
    for number in range(FAILURES_IN_A_ROW):
        gate.note("hook", TemporaryFailure("down"), notification_id=f"other{number}", began_at=gate._clock())
    assert gate.is_holding("hook")


async def test_after_two_quick_attempts_a_delivery_moves_to_the_first_retry_topic_as_it_is(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 503")
    assert await run(deliverer, make_delivery()) == [0.5]
    [record] = stage.deferred
    assert (record.topic, record.partition) == ("orders.retry.10s", RECORD.partition % 2)
    assert deferred(stage).origin == RECORD
    deferral = deferred(stage).deferral
    assert (deferral.channel, deferral.attempts, deferral.last_error) == ("hook", 2, "HTTP 503")
    assert deferral.first_failed_at == NOW
    assert deferral.not_before_ms == int((NOW + timedelta(seconds=10)).timestamp() * 1000)


async def test_attempts_and_the_first_failure_are_counted_over_all_hops(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 503")
    delivery = make_delivery()
    delivery.attempts, delivery.first_failed_at = 2, NOW - timedelta(minutes=9)
    assert await run(deliverer, delivery) == []
    assert stage.deferred == []
    letter = stage.buried[0]
    assert letter["dlq-attempts"] == b"3"
    assert letter["dlq-first-failed-at"] == b"2026-11-23T11:51:00+00:00"


async def test_a_long_retry_after_moves_it_at_once_to_the_tier_that_respects_it(stage: Stage) -> None:
    deliverer, gate = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 500", retry_after_seconds=30.0)
    assert await run(deliverer, make_delivery()) == []
    assert stage.deferred[0].topic == "orders.retry.1m"
    assert gate.admits("hook")


async def test_what_would_come_back_only_after_its_end_has_expired(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 503")
    assert await run(deliverer, make_delivery(age_seconds=3595)) == [0.5]
    assert (stage.deferred, stage.buried) == ([], [])


async def test_a_permanent_failure_is_never_deferred(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = PermanentFailure("HTTP 400")
    await run(deliverer, make_delivery())
    assert (stage.deferred, len(stage.buried)) == ([], 1)


async def test_a_retry_record_that_cannot_be_written_yet_is_written_later_and_nothing_is_sent_meanwhile(
    stage: Stage,
) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 503")
    delivery = make_delivery()
    await deliverer.attempt(delivery)
    stage.retry_failure = KafkaUnavailable("away")
    assert [await deliverer.attempt(delivery) for _ in range(3)] == [1.0, 2.0, 4.0]
    stage.retry_failure = None
    assert await deliverer.attempt(delivery) is None
    assert (len(stage.sent), len(stage.deferred)) == (2, 1)


async def test_a_partition_that_was_lost_moves_nothing_any_more(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 503")
    delivery = make_delivery()
    delivery.attempts = 1
    stage.on_send = delivery.journey.assignment.fence
    assert await run(deliverer, delivery) == []
    assert stage.deferred == []


@pytest.mark.parametrize("failure", [TopicMissing("no such topic"), NotAuthorized("no"), RecordRejected("too large")])
async def test_where_a_retry_topic_cannot_be_used_the_lane_retries_to_the_end(stage: Stage, failure: Any) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True, max_attempts=4)
    stage.failure = TemporaryFailure("HTTP 503")
    stage.retry_failure = failure
    pauses = await run(deliverer, make_delivery())
    assert len(stage.sent) == 4
    assert len(pauses) == 3
    assert stage.buried[0]["dlq-attempts"] == b"4"


async def test_a_throttle_costs_no_attempt_and_the_delivery_stays_in_its_lane(stage: Stage) -> None:
    deliverer, gate = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 429", retry_after_seconds=30.0, is_throttled=True)
    delivery = make_delivery()
    assert await deliverer.attempt(delivery) == 0.5
    assert not gate.admits("hook")
    assert (delivery.attempts, stage.deferred) == (0, [])


async def test_an_outage_costs_no_attempt_however_long_it_lasts(stage: Stage) -> None:
    deliverer, gate = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("nobody answers")
    break_down(gate)
    deliveries = [make_delivery(id=f"n{number}") for number in range(20)]
    for number in range(2 * len(deliveries)):  # each is the probe twice, as lanes take turns
        stage.seconds += gate.pause_seconds("hook")
        assert await deliverer.attempt(deliveries[number % len(deliveries)]) is not None
    assert {delivery.attempts for delivery in deliveries} == {0}
    stage.failure = None
    stage.seconds += gate.pause_seconds("hook")
    assert [await run(deliverer, delivery) for delivery in deliveries] == [[]] * len(deliveries)
    assert len(stage.done) == len(deliveries)
    assert (stage.deferred, stage.buried) == ([], [])


async def test_a_notification_that_fails_every_probe_makes_room_for_the_others(stage: Stage) -> None:
    deliverer, gate = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 500")
    break_down(gate)
    delivery = make_delivery()
    for _ in range(MAX_SPARED):
        stage.seconds += gate.pause_seconds("hook")
        await deliverer.attempt(delivery)
    assert deferred(stage).deferral.attempts == 0


async def test_a_failure_of_one_message_counts_although_the_channel_is_on_probation(stage: Stage) -> None:
    deliverer, gate = await build_deliverer(stage)
    break_down(gate)
    stage.seconds += gate.pause_seconds("hook")
    stage.failure = TemporaryFailure("450 greylisted", is_of_channel=False)
    delivery = make_delivery()
    await deliverer.attempt(delivery)
    assert delivery.attempts == 1
    assert gate.admits("hook")


async def test_a_hand_over_moves_on_what_a_paused_channel_cannot_send(stage: Stage) -> None:
    deliverer, gate = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 429", retry_after_seconds=40.0, is_throttled=True)
    delivery = make_delivery()
    await deliverer.attempt(delivery)
    delivery.journey.assignment.begin_drain()
    assert await deliverer.attempt(delivery) is None
    assert len(stage.sent) == 1
    assert stage.deferred[0].topic == "orders.retry.1m"
    assert gate.is_holding("hook")


@pytest.mark.parametrize("is_strict", [True, False])
async def test_a_hand_over_tries_first_what_later_ones_would_overtake_in_a_retry_topic(
    stage: Stage, *, is_strict: bool
) -> None:
    deliverer, gate = await build_deliverer(stage, has_retry_topics=True, is_strict=is_strict)
    stage.failure = TemporaryFailure("HTTP 503")
    break_down(gate)
    delivery = make_delivery()
    delivery.journey.assignment.begin_drain()
    await run(deliverer, delivery)
    assert len(stage.sent) == (0 if is_strict else 1)
    assert deferred(stage).deferral.attempts == 0


async def test_a_hand_over_moves_on_what_would_wait_too_long(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True)
    stage.failure = TemporaryFailure("HTTP 503")
    delivery = make_delivery()
    await deliverer.attempt(delivery)
    assert await deliverer.hand_over(delivery)
    assert deferred(stage).deferral.attempts == 1


async def test_in_strict_order_it_also_moves_on_what_was_not_tried_yet(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True, is_strict=True)
    assert await deliverer.hand_over(make_delivery())
    assert deferred(stage).deferral.first_failed_at is None


async def test_in_relaxed_order_what_was_not_tried_yet_is_tried_first_or_later_ones_would_be_tried_before_it(
    stage: Stage,
) -> None:
    deliverer, gate = await build_deliverer(stage, has_retry_topics=True)
    break_down(gate)
    stage.failure = TemporaryFailure("down")
    delivery = make_delivery()
    assert not await deliverer.hand_over(delivery)
    delivery.journey.assignment.begin_drain()
    assert await run(deliverer, delivery) == [0.5]
    assert (len(stage.sent), len(stage.deferred)) == (1, 1)


@pytest.mark.parametrize("has_retry_topics", [True, False])
async def test_what_would_expire_meanwhile_or_has_no_retry_topic_is_left_to_the_next_owner(
    stage: Stage, *, has_retry_topics: bool
) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=has_retry_topics)
    delivery = make_delivery(age_seconds=3595 if has_retry_topics else 0)
    delivery.first_failed_at = NOW
    assert not await deliverer.hand_over(delivery)
    assert (delivery.pending, stage.deferred) == (None, [])


async def test_strict_order_asks_before_it_sends_and_has_nothing_to_leave_where_nobody_waits(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, is_strict=True)
    assert await deliverer.attempt(make_delivery()) is None
    assert stage.order == [("ask", PLACE)]


async def test_who_moves_stands_in_the_queue_and_leaves_it_at_the_end(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True, is_strict=True)
    stage.failure = TemporaryFailure("HTTP 503")
    await run(deliverer, make_delivery())
    assert stage.order == [("ask", PLACE), ("ask", PLACE), ("queue", PLACE)]
    stage.order.clear()
    stage.failure, stage.turn = None, Free(is_queued=True)
    await run(deliverer, make_delivery())
    assert stage.order == [("ask", PLACE), ("leave", PLACE)]


async def test_who_expires_or_dies_leaves_the_queue_too(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, is_strict=True)
    await run(deliverer, make_delivery(age_seconds=3600))
    stage.failure = PermanentFailure("HTTP 400")
    await run(deliverer, make_delivery())
    assert stage.order == [("leave", PLACE), ("ask", PLACE), ("leave", PLACE)]


async def test_who_follows_waits_in_its_lane_while_that_is_short(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True, is_strict=True)
    stage.turn = Behind(9.5)
    delivery = make_delivery()
    assert await deliverer.attempt(delivery) == 1.0
    stage.turn = Behind(0.0)
    assert await deliverer.attempt(delivery) == 0.2
    assert (stage.sent, stage.deferred) == ([], [])


async def test_who_follows_for_long_follows_into_a_retry_topic_at_no_cost(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True, is_strict=True)
    stage.turn = Behind(61.0)
    assert await run(deliverer, make_delivery()) == []
    assert stage.deferred[0].topic == "orders.retry.1m"
    assert deferred(stage).deferral.attempts == 0
    assert ("queue", PLACE) in stage.order


async def test_whose_predecessor_never_ends_does_not_wait_in_its_lane_for_ever(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True, is_strict=True)
    stage.turn = Behind(0.0)
    pauses = await run(deliverer, make_delivery(), most=100)
    assert 9.0 < sum(pauses) <= 10.2
    assert stage.deferred[0].topic == "orders.retry.10s"


async def test_a_hand_over_does_not_wait_for_predecessors(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, has_retry_topics=True, is_strict=True)
    stage.turn = Behind(1.0)
    delivery = make_delivery()
    delivery.journey.assignment.begin_drain()
    assert await deliverer.attempt(delivery) is None
    assert len(stage.deferred) == 1


async def test_while_the_order_cannot_be_asked_nothing_is_sent_and_nothing_spent(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, is_strict=True)
    stage.turn = OrderUnavailable("away")
    delivery = make_delivery()
    assert [await deliverer.attempt(delivery) for _ in range(3)] == [1.0, 2.0, 4.0]
    assert (delivery.attempts, stage.sent) == (0, [])


async def test_who_cannot_leave_the_queue_tries_again_and_is_not_sent_twice(stage: Stage) -> None:
    deliverer, _ = await build_deliverer(stage, is_strict=True)
    stage.turn = Free(is_queued=True)
    delivery = make_delivery()
    stage.on_send = lambda: setattr(stage, "turn", OrderUnavailable("away"))
    assert await deliverer.attempt(delivery) == 1.0
    stage.turn = Free()
    assert await deliverer.attempt(delivery) is None
    assert len(stage.sent) == 1
    assert stage.order[-1] == ("leave", PLACE)
