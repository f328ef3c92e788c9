"""What a record means, above all one of a retry topic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tocsin_consumer.planning import plan_record
from tocsin_core.commits import NO_CHANNEL
from tocsin_core.message import Record
from tocsin_core.retry_record import Deferral, build_retry_headers

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DUE = NOW + timedelta(seconds=10)
VALUE = b'{"id":"n1","fromID":"1","toID":"2","message":"hi"}'
TRACE = ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
ORIGIN = Record("orders", 3, 7, 1_700_000_000_000, b"2", VALUE, (TRACE,))
CHANNELS = ("hook", "mail")


DUE_MS = int(DUE.timestamp() * 1000)
YEAR_MS = 365 * 86_400_000


def defer(
    origin: Record = ORIGIN, channel: str = "hook", not_before_ms: int = DUE_MS, stamp: int = DUE_MS - 10_000
) -> Record:
    deferral = Deferral(channel, not_before_ms, 2, NOW, "HTTP 503")
    return Record("orders.retry.10s", 1, 99, stamp, origin.key, origin.value, build_retry_headers(origin, deferral))


def test_a_record_is_its_own_origin_and_due_at_once() -> None:
    plan = plan_record(ORIGIN, channels=CHANNELS, now=NOW)
    assert (plan.origin, plan.not_before, plan.attempts) == (ORIGIN, None, 0)
    assert plan.channels == {"hook": ("hook",), "mail": ("mail",)}


def test_a_retry_record_is_for_its_channel_alone_and_goes_on_where_it_stopped() -> None:
    plan = plan_record(defer(), channels=CHANNELS, now=NOW, retry_delay_seconds=10)
    assert plan.origin == ORIGIN
    assert plan.channels == {"hook": ("hook",)}
    assert (plan.not_before, plan.attempts, plan.first_failed_at) == (DUE, 2, NOW)
    assert plan.trace_id == "a" * 32
    assert plan.accepted_at == datetime.fromtimestamp(1_700_000_000, UTC)


def test_a_retry_record_of_a_channel_that_is_gone_ends_as_a_dead_letter() -> None:
    plan = plan_record(defer(channel="sms"), channels=CHANNELS, now=NOW, retry_delay_seconds=10)
    assert plan.channels == {NO_CHANNEL: ("sms",)}


@pytest.mark.parametrize("record", [ORIGIN, defer()._replace(headers=defer().headers[:-1])])
def test_what_is_no_retry_record_is_buried_as_it_lies_there(record: Record) -> None:
    plan = plan_record(record, channels=CHANNELS, now=NOW, retry_delay_seconds=10)
    assert plan.burial is not None
    assert plan.burial.reason == "malformed_retry"
    assert plan.origin == record
    assert (plan.channels, plan.not_before) == ({NO_CHANNEL: ("",)}, None)


def test_a_retry_record_whose_value_nobody_can_read_is_buried_as_what_it_was() -> None:
    junk = ORIGIN._replace(value=b"junk")
    plan = plan_record(defer(junk), channels=CHANNELS, now=NOW, retry_delay_seconds=10)
    assert plan.burial is not None
    assert plan.burial.reason == "undecodable"
    assert (plan.origin, plan.not_before) == (junk, None)


def test_headers_of_a_retry_mean_nothing_in_the_topic_itself() -> None:
    plan = plan_record(defer()._replace(topic="orders"), channels=CHANNELS, now=NOW)
    assert (plan.not_before, plan.attempts) == (None, 0)
    assert set(plan.channels) == set(CHANNELS)


@pytest.mark.parametrize("ahead_ms", [1, YEAR_MS, 10**17, 2**63 - 1 - DUE_MS])
@pytest.mark.parametrize("has_brokers_timestamp", [False, True])
def test_a_retry_record_waits_no_longer_than_its_topics_delay_whatever_clock_wrote_it(
    *, ahead_ms: int, has_brokers_timestamp: bool
) -> None:
    stamp = DUE_MS - 10_000 + (0 if has_brokers_timestamp else ahead_ms)
    record = defer(not_before_ms=DUE_MS + ahead_ms, stamp=stamp)
    plan = plan_record(record, channels=CHANNELS, now=NOW, retry_delay_seconds=10)
    assert (plan.burial, plan.not_before) == (None, DUE)


def test_a_retry_record_that_is_due_does_not_wait_again() -> None:
    plan = plan_record(defer(), channels=CHANNELS, now=NOW + timedelta(hours=1), retry_delay_seconds=10)
    assert plan.not_before == DUE


@pytest.mark.parametrize("broken", ["decode", "trace_id_of", "accepted_at_of"])
@pytest.mark.parametrize("retry_delay_seconds", [None, 10])
def test_a_record_that_breaks_its_reader_is_a_dead_letter_and_ends_no_process(
    broken: str, retry_delay_seconds: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise OverflowError("a defect")

    monkeypatch.setattr(f"tocsin_consumer.planning.{broken}", break_down)
    plan = plan_record(defer(), channels=CHANNELS, now=NOW, retry_delay_seconds=retry_delay_seconds)
    assert plan.burial is not None
    assert (plan.burial.reason, plan.burial.error_class) == ("undecodable", "OverflowError")
    assert (plan.origin, plan.channels) == (defer(), {NO_CHANNEL: ("",)})
