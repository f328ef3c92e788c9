"""One attempt: every way it can go on, with the channel, the store and the topic under the test's control."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from stage import NOW, RECORD, Stage, StageChannel, build_deliverer, make_delivery
from tocsin_consumer.channels.base import NobodyThere, PermanentFailure, Postponed, SendFailed, TemporaryFailure
from tocsin_consumer.claims import Buried, ClaimsUnavailable, Done, Granted, Held
from tocsin_consumer.delivery import Deliverer, expires_at
from tocsin_core.errors import TopicMissing
from tocsin_core.message import Notification
from tocsin_core.users import DirectoryUnavailable, Profile, ProfileInvalid


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
async def deliverer(stage: Stage) -> Deliverer:
    return (await build_deliverer(stage))[0]


async def test_a_taken_notification_is_at_its_end_and_remembered(stage: Stage, deliverer: Deliverer) -> None:
    assert await deliverer.attempt(make_delivery()) is None
    assert len(stage.sent) == 1
    assert stage.done == ["n1"]
    assert stage.buried == []


async def test_an_expired_notification_is_not_sent(stage: Stage, deliverer: Deliverer) -> None:
    assert await deliverer.attempt(make_delivery(age_seconds=3600)) is None
    assert stage.sent == []
    assert stage.buried == []


async def test_a_temporary_failure_is_tried_again_after_the_backoff(stage: Stage, deliverer: Deliverer) -> None:
    stage.failure = TemporaryFailure("HTTP 503")
    delivery = make_delivery()
    assert await deliverer.attempt(delivery) == 0.5
    assert await deliverer.attempt(delivery) == 1.0
    assert stage.released == [False, False]


async def test_nobody_to_send_to_is_an_end_and_no_dead_letter(stage: Stage, deliverer: Deliverer) -> None:
    stage.failure = NobodyThere("nobody connected")
    assert await deliverer.attempt(make_delivery()) is None
    assert (stage.buried, stage.done, stage.released) == ([], [], [False])


async def test_a_postponed_send_waits_and_costs_no_attempt(stage: Stage, deliverer: Deliverer) -> None:
    stage.failure = Postponed("the way is not there")
    delivery = make_delivery()
    assert [await deliverer.attempt(delivery) for _ in range(5)] == [1.0, 2.0, 4.0, 8.0, 15.0]
    assert (delivery.attempts, stage.buried) == (0, [])
    stage.failure = None
    assert await deliverer.attempt(delivery) is None
    assert stage.done == ["n1"]


async def test_the_last_attempt_is_followed_by_a_dead_letter(stage: Stage, deliverer: Deliverer) -> None:
    stage.failure = TemporaryFailure("HTTP 503")
    delivery = make_delivery()
    results = [await deliverer.attempt(delivery) for _ in range(3)]
    assert results[-1] is None
    assert stage.buried[0]["dlq-reason"] == b"retries_exhausted"
    assert stage.buried[0]["dlq-attempts"] == b"3"
    assert stage.buried[0]["dlq-error-class"] == b"TemporaryFailure"
    assert stage.done == []
    assert stage.remembered == [("n1", delivery.journey.place)]


async def test_retry_after_is_honoured_up_to_its_bound(stage: Stage, deliverer: Deliverer) -> None:
    stage.failure = TemporaryFailure("HTTP 429", retry_after_seconds=86_400)
    assert await deliverer.attempt(make_delivery()) == 60.0


async def test_a_permanent_failure_is_a_dead_letter_with_the_channels_reason(
    stage: Stage, deliverer: Deliverer
) -> None:
    stage.failure = PermanentFailure("no email", reason="no_address")
    assert await deliverer.attempt(make_delivery()) is None
    assert stage.buried[0]["dlq-reason"] == b"no_address"


async def test_a_channel_that_breaks_is_a_failed_attempt_and_ends_as_a_dead_letter(
    stage: Stage, deliverer: Deliverer
) -> None:
    stage.failure = ZeroDivisionError("a defect")
    delivery = make_delivery()
    assert [await deliverer.attempt(delivery) for _ in range(3)] == [0.5, 1.0, None]
    assert stage.buried[0]["dlq-error-message"] == b"ZeroDivisionError: a defect"


async def test_a_send_that_takes_too_long_is_cancelled_and_uncertain(
    stage: Stage, deliverer: Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = deliverer._channels["hook"]
    monkeypatch.setattr(channel, "timeout_seconds", 0.01)
    monkeypatch.setattr(channel, "send", lambda _: asyncio.sleep(60))
    assert await deliverer.attempt(make_delivery()) == 0.5
    assert stage.released == [True]


async def test_what_was_sent_before_is_not_sent_again(stage: Stage, deliverer: Deliverer) -> None:
    stage.claim_answer = Done()
    assert await deliverer.attempt(make_delivery()) is None
    assert stage.sent == []


async def test_a_dead_letter_is_not_tried_again(stage: Stage, deliverer: Deliverer) -> None:
    stage.claim_answer = Buried()
    assert await deliverer.attempt(make_delivery()) is None
    assert stage.sent == []
    assert stage.buried == []


async def test_somebody_elses_claim_is_waited_for_without_costing_an_attempt(
    stage: Stage, deliverer: Deliverer
) -> None:
    stage.claim_answer = Held(0.2)
    delivery = make_delivery()
    assert await deliverer.attempt(delivery) == 0.2
    assert delivery.attempts == 0


async def test_nobody_to_send_to_is_an_end(stage: Stage, deliverer: Deliverer) -> None:
    deliverer._channels = {"hook": StageChannel(stage, devices=())}
    assert await deliverer.attempt(make_delivery()) is None
    assert (stage.sent, stage.buried) == ([], [])


async def test_an_uncertain_claim_stays_uncertain_after_a_failed_send(stage: Stage, deliverer: Deliverer) -> None:
    stage.claim_answer = Granted("token", is_uncertain=True)
    stage.failure = TemporaryFailure("HTTP 503")
    await deliverer.attempt(make_delivery())
    assert stage.released == [True]


def _break_claims(stage: Stage) -> None:
    stage.claim_answer = ClaimsUnavailable("away")


def _break_users(stage: Stage) -> None:
    stage.profile = DirectoryUnavailable("away")


def _forget_user(stage: Stage) -> None:
    stage.profile = None


def _spoil_user(stage: Stage) -> None:
    stage.profile = ProfileInvalid("user '2': email")


@pytest.mark.parametrize("breaks", [_break_claims, _break_users, _forget_user, _spoil_user])
async def test_what_is_not_the_notifications_fault_costs_no_attempt_and_sends_nothing(
    stage: Stage, deliverer: Deliverer, breaks: Callable[[Stage], None]
) -> None:
    breaks(stage)
    delivery = make_delivery()
    assert [await deliverer.attempt(delivery) for _ in range(5)] == [1.0, 2.0, 4.0, 8.0, 15.0]
    assert delivery.attempts == 0
    assert stage.sent == []
    assert stage.buried == []


async def test_a_recipient_who_stays_unknown_is_a_dead_letter(stage: Stage, deliverer: Deliverer) -> None:
    stage.profile = None
    assert await deliverer.attempt(make_delivery(age_seconds=121)) is None
    assert stage.buried[0]["dlq-reason"] == b"user_missing"


async def test_a_directory_that_is_down_for_long_makes_no_dead_letter(stage: Stage, deliverer: Deliverer) -> None:
    stage.profile = DirectoryUnavailable("away")
    delivery = make_delivery(age_seconds=3000)
    assert [await deliverer.attempt(delivery) for _ in range(2)] == [1.0, 2.0]
    stage.profile = Profile(id="2")
    assert await deliverer.attempt(delivery) is None
    assert (len(stage.sent), stage.buried) == (1, [])


async def test_a_recipient_whose_profile_stays_broken_is_a_dead_letter_that_says_what_to_mend(
    stage: Stage, deliverer: Deliverer
) -> None:
    stage.profile = ProfileInvalid("user '2': Expected `str`, got `int` - at `$.email`")
    assert await deliverer.attempt(make_delivery(age_seconds=121)) is None
    letter = stage.buried[0]
    assert (letter["dlq-reason"], letter["dlq-error-class"]) == (b"user_missing", b"ProfileInvalid")
    assert b"$.email" in (letter["dlq-error-message"] or b"")


async def test_a_dead_letter_that_cannot_be_written_waits_and_is_not_sent_meanwhile(
    stage: Stage, deliverer: Deliverer
) -> None:
    stage.failure = PermanentFailure("HTTP 400")
    stage.topic_failure = TopicMissing("unknown topic", advice="create the topic")
    delivery = make_delivery()
    assert await deliverer.attempt(delivery) == 1.0
    assert await deliverer.attempt(delivery) == 2.0
    assert len(stage.sent) == 1
    stage.topic_failure = None
    assert await deliverer.attempt(delivery) is None
    assert len(stage.buried) == 1


async def test_a_partition_lost_during_the_last_attempt_leaves_the_dead_letter_to_its_new_owner(
    stage: Stage, deliverer: Deliverer
) -> None:
    delivery = make_delivery()
    stage.failure = PermanentFailure("HTTP 410")
    stage.on_send = delivery.journey.assignment.fence
    assert await deliverer.attempt(delivery) is None
    assert len(stage.sent) == 1
    assert stage.buried == []
    assert stage.remembered == []


async def test_an_unknown_channel_is_a_dead_letter_that_names_the_known_ones(
    stage: Stage, deliverer: Deliverer
) -> None:
    assert await deliverer.attempt(make_delivery(channel="sms")) is None
    assert stage.buried[0]["dlq-reason"] == b"unknown_channel"
    assert b"hook" in (stage.buried[0]["dlq-error-message"] or b"")


async def test_a_partition_lost_while_claiming_is_not_sent_from(stage: Stage, deliverer: Deliverer) -> None:
    delivery = make_delivery()
    delivery.journey.assignment.fence()
    assert await deliverer.attempt(delivery) is None
    assert stage.sent == []
    assert stage.released == [False]


async def test_a_dead_letter_keeps_headers_and_counts_replays(stage: Stage, deliverer: Deliverer) -> None:
    stage.failure = PermanentFailure("HTTP 400 " + "é" * 2000)
    delivery = make_delivery()
    delivery.journey.origin = RECORD._replace(headers=(("x", None), ("dlq-replay-count", b"2")))
    await deliverer.attempt(delivery)
    letter = stage.buried[0]
    assert letter["x"] is None
    assert letter["dlq-replay-count"] == b"2"
    assert (letter["dlq-original-partition"], letter["dlq-original-offset"]) == (b"3", b"7")
    assert len(letter["dlq-error-message"] or b"") <= 1024


async def test_a_dead_letter_has_every_header_that_tells_its_story(stage: Stage, deliverer: Deliverer) -> None:
    stage.failure = PermanentFailure("HTTP 400")
    await deliverer.attempt(make_delivery())
    assert set(stage.buried[0]) == {
        *("traceparent", "dlq-original-topic", "dlq-original-partition", "dlq-original-offset"),
        *("dlq-original-timestamp", "dlq-consumer-group", "dlq-channel", "dlq-reason", "dlq-error-class"),
        *("dlq-error-message", "dlq-attempts", "dlq-first-failed-at", "dlq-last-failed-at", "dlq-replay-count"),
    }


@pytest.mark.parametrize(
    ("own", "ttl_seconds", "expected"),
    [
        (None, 60, NOW + timedelta(seconds=60)),
        (NOW + timedelta(seconds=30), 60, NOW + timedelta(seconds=30)),
        (NOW + timedelta(seconds=90), 60, NOW + timedelta(seconds=60)),
    ],
)
def test_the_earlier_of_the_two_expiries_counts(own: datetime | None, ttl_seconds: int, expected: datetime) -> None:
    notification = Notification(id="n", from_id="1", to_id="2", message="hi", expires_at=own)
    assert expires_at(notification, NOW, ttl_seconds) == expected


def test_a_failure_says_whether_another_attempt_can_help() -> None:
    assert not SendFailed.retriable
    assert TemporaryFailure.retriable
    assert not PermanentFailure.retriable
