"""A retry record gives back what went into it, byte for byte; anything else is refused, whatever it is."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from tocsin_core.errors import RetryRecordError
from tocsin_core.message import Record
from tocsin_core.retry_record import (
    MAX_ERROR_BYTES,
    MAX_NUMBER,
    NAMES,
    Deferral,
    build_retry_headers,
    parse_retry_record,
)

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=10) | st.sampled_from(NAMES)
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=20)), max_size=12).map(tuple)
blobs = st.none() | st.binary(max_size=50)
zones = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=zones)  # noqa: DTZ001 - bounds are naive
topics = st.text(st.sampled_from("abcXYZ019._-"), min_size=1, max_size=249)
offsets = st.integers(0, 2**63 - 1)
origins = st.builds(
    Record,
    topic=topics,
    partition=st.integers(0, 2**31 - 1),
    offset=offsets,
    timestamp_ms=st.integers(-1, 2**63 - 1),
    key=blobs,
    value=blobs,
    headers=headers,
)
deferrals = st.builds(
    Deferral,
    channel=st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z"),
    not_before_ms=st.integers(0, 10**13),
    attempts=st.integers(0, 1_000_000),
    first_failed_at=st.none() | moments,
    last_error=st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
)


def store(origin: Record, deferral: Deferral) -> Record:
    stored = build_retry_headers(origin, deferral)
    return Record("t.retry.10s", 0, 5, deferral.not_before_ms, origin.key, origin.value, stored)


@given(origins, deferrals)
def test_what_is_deferred_comes_back_as_it_was(origin: Record, deferral: Deferral) -> None:
    deferred = parse_retry_record(store(origin, deferral))
    assert deferred.origin == origin
    assert deferred.deferral == deferral


@given(origins, deferrals, deferrals)
def test_a_second_deferral_is_of_the_same_original(origin: Record, first: Deferral, second: Deferral) -> None:
    once = parse_retry_record(store(origin, first))
    twice = parse_retry_record(store(once.origin, second))
    assert twice.origin == origin
    assert twice.deferral == second


@given(origins)
def test_any_other_record_is_refused_with_a_reason_and_nothing_worse(record: Record) -> None:
    if tuple(name for name, _ in record.headers[-len(NAMES) :]) == NAMES:
        return
    refused = False
    try:
        parse_retry_record(record)
    except RetryRecordError as error:
        refused = bool(str(error))
    assert refused


@given(origins, deferrals, st.sampled_from(range(len(NAMES))), st.none() | st.binary(max_size=300))
def test_a_header_of_ours_with_any_bytes_is_read_or_refused(
    origin: Record, deferral: Deferral, index: int, value: bytes | None
) -> None:
    record = store(origin, deferral)
    position = len(origin.headers) + index
    changed = list(record.headers)
    changed[position] = (changed[position][0], value)
    with contextlib.suppress(RetryRecordError):
        deferred = parse_retry_record(record._replace(headers=tuple(changed)))
        assert 0 <= deferred.deferral.not_before_ms <= MAX_NUMBER
        assert deferred.origin.headers == origin.headers


@given(origins, deferrals, moments)
def test_what_is_due_waits_no_longer(origin: Record, deferral: Deferral, now: datetime) -> None:
    deferred = parse_retry_record(store(origin, deferral))
    due_ms = deferral.not_before_ms
    wait = deferred.due_in_seconds(now)
    assert wait >= 0
    assert (wait == 0) == (now.astimezone(UTC).timestamp() >= due_ms / 1000)


@given(origins, deferrals, st.text(min_size=2000, max_size=3000))
def test_an_error_of_any_length_fits(origin: Record, deferral: Deferral, text: str) -> None:
    long = Deferral(deferral.channel, deferral.not_before_ms, deferral.attempts, deferral.first_failed_at, text)
    error = parse_retry_record(store(origin, long)).deferral.last_error
    assert len(error.encode()) <= MAX_ERROR_BYTES
