"""Accepting against a sink that fails on demand: a real broker cannot be made to fail in each of these ways."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import pytest

from tocsin_core import errors
from tocsin_core.codec import Headers, decode, make_traceparent
from tocsin_core.outgoing import OVERHEAD_BYTES, Outgoing, Stored
from tocsin_core.users import DirectoryUnavailable, Profile
from tocsin_ingestion.accept import Acceptor, Target
from tocsin_ingestion.admission import Limits
from tocsin_ingestion.draft import Draft
from tocsin_ingestion.problems import Problem
from tocsin_ingestion.sent import Accepted

TRACE = make_traceparent()
TARGET = Target(topic="t", tenant="default/orders", delivery_timeout_seconds=0.01 - 2.0)
LIMITS = Limits(max_in_flight=3, max_in_flight_bytes=10_000)
"""The grace of two seconds makes a client wait 10 ms for the sink."""


STORED = Stored(0, 7)


class Directory:
    def __init__(self, *known: str, error: Exception | None = None) -> None:
        self.known, self.error = known, error

    async def find(self, user_id: str) -> Profile | None:
        if self.error:
            raise self.error
        return Profile(id=user_id) if user_id in self.known else None

    def knows_all(self, user_ids: Collection[str]) -> bool:
        del user_ids
        return False  # `find` is to be asked


class Sink:
    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[tuple[bytes, bytes]] = []
        self.records: list[Outgoing] = []
        self.has_two = asyncio.Event()
        self.in_flight = self.in_flight_bytes = 0
        self.oldest_in_flight_seconds = 0.0

    def send_all(self, topic: str, contents: Sequence[tuple[bytes, bytes, Headers]]) -> list[Outgoing]:
        for outcome in self.outcomes[: len(contents)]:
            if isinstance(outcome, errors.QueueFull):
                raise outcome  # all or nothing
        return [self.send(topic, key, value, headers) for key, value, headers in contents]

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers) -> Outgoing:
        assert topic == "t"
        assert dict(headers)["traceparent"] == TRACE.encode()
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, errors.QueueFull):
            raise outcome
        self.sent.append((key, value))
        record = Outgoing(topic, (key, value, headers))
        self.records.append(record)
        if len(self.records) == 2:
            self.has_two.set()
        if isinstance(outcome, Never):
            self.in_flight += 1
            self.in_flight_bytes += len(key) + len(value) + OVERHEAD_BYTES
        else:
            record.settle(outcome or STORED)
        return record


class Never(Exception):
    """The broker never answers."""


def draft(to_id: int | str = 2, message: str = "hi") -> Draft:
    return Draft(from_id=1, to_id=to_id, message=message)


def build(*outcomes: Exception | None) -> tuple[Acceptor, Sink]:
    sink = Sink(*outcomes)
    return Acceptor(Directory("1", "2", "3"), sink, TARGET, limits=LIMITS), sink


async def refuse(acceptor: Acceptor, *, key: str | None = None, to_id: int | str = 2) -> Problem:
    with pytest.raises(Problem) as caught:
        await acceptor.accept(draft(to_id), traceparent=TRACE, key=key)
    return caught.value


async def test_an_accepted_notification_is_in_the_sink_under_its_id_and_keyed_by_its_recipient() -> None:
    acceptor, sink = build()
    accepted = await acceptor.accept(draft(), traceparent=TRACE)
    ((key, value),) = sink.sent
    assert key == b"2"
    assert decode(value).id == accepted.id
    assert (accepted.partition, accepted.offset) == (0, 7)


@pytest.mark.parametrize(("from_id", "to_id", "field"), [(9, 2, "fromID"), (1, 9, "toID"), (8, 9, "fromID")])
async def test_an_unknown_user_is_a_404_that_says_which(from_id: int, to_id: int, field: str) -> None:
    acceptor, sink = build()
    with pytest.raises(Problem) as caught:
        await acceptor.accept(Draft(from_id=from_id, to_id=to_id, message="hi"), traceparent=TRACE)
    assert caught.value.kind.status == 404
    assert [error.field for error in caught.value.errors] == [field]
    assert str(from_id if field == "fromID" else to_id) in caught.value.detail
    assert not sink.sent


async def test_a_directory_that_cannot_answer_is_a_503() -> None:
    sink = Sink()
    acceptor = Acceptor(Directory(error=DirectoryUnavailable("/secret/path: gone")), sink, TARGET)
    problem = await refuse(acceptor)
    assert (problem.kind.name, problem.kind.status) == ("directory-unavailable", 503)
    assert "/secret/path" not in problem.detail
    assert problem.describe_cause() == {"cause": "/secret/path: gone"}


@pytest.mark.parametrize(
    ("failure", "name", "status"),
    [
        (errors.QueueFull("full"), "busy", 503),
        (errors.KafkaUnavailable("down"), "kafka-unavailable", 503),
        (errors.OutcomeUnknown("late"), "outcome-unknown", 504),
        (errors.NotAuthenticated("who"), "kafka-refused", 503),
        (errors.NotAuthorized("no", advice="grant WRITE on topic t"), "kafka-refused", 503),
        (errors.TopicMissing("gone"), "kafka-refused", 503),
        (errors.RecordRejected("large"), "record-rejected", 422),
        (errors.KafkaFailure("other"), "kafka-unavailable", 503),
    ],
    ids=str,
)
async def test_each_failure_of_kafka_has_its_answer(failure: errors.KafkaFailure, name: str, status: int) -> None:
    acceptor, _ = build(failure)
    problem = await refuse(acceptor)
    assert (problem.kind.name, problem.kind.status) == (name, status)
    assert (problem.kind.retry_after_seconds is not None) == (status >= 500)


async def test_advice_for_the_operator_is_for_the_log_and_not_for_the_client() -> None:
    acceptor, _ = build(errors.NotAuthorized("topic t: denied for user bob", advice="grant WRITE on topic t"))
    problem = await refuse(acceptor)
    assert problem.describe_cause() == {"cause": "topic t: denied for user bob", "advice": "grant WRITE on topic t"}
    assert "bob" not in str(problem.build_details())


async def test_a_sink_that_never_answers_is_a_504_within_the_deadline() -> None:
    acceptor, _ = build(Never())
    assert (await refuse(acceptor)).kind.status == 504


async def test_a_504_says_whether_repeating_is_safe() -> None:
    acceptor, _ = build(Never(), Never())
    assert "same Idempotency-Key" in (await refuse(acceptor, key="k")).detail
    assert "deliver it twice" in (await refuse(acceptor)).detail


async def test_the_bound_of_notifications_in_flight_is_a_503() -> None:
    acceptor, sink = build()
    sink.in_flight = LIMITS.max_in_flight
    assert (await refuse(acceptor)).kind.name == "busy"
    assert not sink.sent


async def test_the_bound_of_bytes_in_flight_is_a_503() -> None:
    acceptor, sink = build()
    sink.in_flight_bytes = LIMITS.max_in_flight_bytes
    assert (await refuse(acceptor)).kind.name == "busy"
    assert not sink.sent


async def test_a_stalled_kafka_is_a_503_at_once() -> None:
    acceptor, sink = build()
    sink.oldest_in_flight_seconds = 3.1
    assert (await refuse(acceptor)).kind.name == "kafka-unavailable"
    assert not sink.sent


async def test_a_closed_acceptor_refuses() -> None:
    acceptor, sink = build()
    acceptor.close()
    assert (await refuse(acceptor)).kind.name == "draining"
    assert not sink.sent


async def test_a_repeat_with_the_same_key_is_answered_without_a_second_record() -> None:
    acceptor, sink = build()
    first = await acceptor.accept(draft(), traceparent=TRACE, key="k")
    again = await acceptor.accept(draft("2"), traceparent=TRACE, key="k")
    assert again == Accepted(first.id, is_replay=True)
    assert len(sink.sent) == 1


async def test_a_repeat_while_the_first_is_in_flight_is_a_409() -> None:
    acceptor, _ = build(Never())
    await refuse(acceptor, key="k")  # answered 504; the record is still on its way
    assert (await refuse(acceptor, key="k")).kind.status == 409


async def test_a_record_that_arrives_after_its_504_makes_the_repeat_a_replay() -> None:
    acceptor, sink = build(Never())
    await refuse(acceptor, key="k")
    sink.records[0].settle(STORED)
    assert (await acceptor.accept(draft(), traceparent=TRACE, key="k")).is_replay


async def test_after_an_unknown_outcome_the_repeat_is_sent_under_the_same_id() -> None:
    acceptor, sink = build(errors.OutcomeUnknown("late"), None)
    await refuse(acceptor, key="k")
    accepted = await acceptor.accept(draft(), traceparent=TRACE, key="k")
    assert [decode(value).id for _, value in sink.sent] == [accepted.id, accepted.id]
    assert not accepted.is_replay


async def test_a_refused_request_leaves_its_key_free() -> None:
    acceptor, _ = build(errors.QueueFull("full"), None)
    assert (await refuse(acceptor, key="k")).kind.name == "busy"
    assert (await refuse(acceptor, key="k", to_id=9)).kind.status == 404
    accepted = await acceptor.accept(draft(3), traceparent=TRACE, key="k")
    assert not accepted.is_replay


async def test_a_batch_issues_every_send_before_it_awaits_one() -> None:
    acceptor, sink = build(Never(), Never())
    running = asyncio.create_task(acceptor.accept_all([draft(2), draft(3)], traceparent=TRACE))
    await sink.has_two.wait()
    assert not running.done()
    for record in sink.records:
        record.settle(STORED)
    assert [isinstance(outcome, Accepted) for outcome in await running] == [True, True]


async def test_a_bound_in_the_midst_of_a_batch_refuses_just_the_items_behind() -> None:
    acceptor, sink = build(*[Never()] * 5)
    outcomes = await acceptor.accept_all([draft()] * 5, traceparent=TRACE)
    kinds = [outcome.kind.name for outcome in outcomes if isinstance(outcome, Problem)]
    assert kinds == [*["outcome-unknown"] * LIMITS.max_in_flight, "busy", "busy"]
    assert len(sink.sent) == LIMITS.max_in_flight


async def test_the_bound_of_bytes_too_is_hit_in_the_midst_of_a_batch() -> None:
    sink = Sink(*[Never()] * 5)
    limits = Limits(max_in_flight_bytes=3 * OVERHEAD_BYTES)
    acceptor = Acceptor(Directory("1", "2"), sink, TARGET, limits=limits)
    outcomes = await acceptor.accept_all([draft()] * 5, traceparent=TRACE)
    kinds = [outcome.kind.name for outcome in outcomes if isinstance(outcome, Problem)]
    assert kinds == [*["outcome-unknown"] * 3, "busy", "busy"]


async def test_each_item_of_a_batch_fails_alone_and_stays_in_its_place() -> None:
    acceptor, sink = build(None, errors.QueueFull("full"), errors.KafkaUnavailable("down"), None)
    broken = (await refuse(acceptor, to_id=9)).kind
    drafts: list[Draft | Problem] = [draft(2), draft(9), draft(3), draft(2), Problem(broken, "unreadable"), draft(3)]
    outcomes = await acceptor.accept_all(drafts, traceparent=TRACE)
    statuses = [outcome.kind.status if isinstance(outcome, Problem) else 202 for outcome in outcomes]
    assert statuses == [202, 404, 503, 503, 404, 202]
    assert [key for key, _ in sink.sent] == [b"2", b"2", b"3"]


async def test_a_repeated_batch_sends_only_what_failed() -> None:
    acceptor, sink = build(None, errors.KafkaUnavailable("down"))
    await acceptor.accept_all([draft(2), draft(3)], traceparent=TRACE, key="k")
    outcomes = await acceptor.accept_all([draft(2), draft(3)], traceparent=TRACE, key="k")
    assert [outcome.is_replay for outcome in outcomes if isinstance(outcome, Accepted)] == [True, False]
    assert len(sink.sent) == 3


async def test_a_notification_that_grows_above_the_limit_when_written_out_is_a_413() -> None:
    acceptor, _ = build()
    grown = Draft(from_id=1, to_id=2, message="hi", data={"a": [1e15] * 20_000})
    with pytest.raises(Problem) as caught:
        await acceptor.accept(grown, traceparent=TRACE)
    assert caught.value.kind.status == 413


async def test_an_empty_batch_has_no_outcomes() -> None:
    acceptor, _ = build()
    assert await acceptor.accept_all([], traceparent=TRACE) == []
