from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tocsin_core.codec import accepted_at_of, decode, encode, make_traceparent, trace_id_of
from tocsin_core.errors import MessageError
from tocsin_core.message import MAX_ID_CHARACTERS, MAX_MESSAGE_CHARACTERS, MAX_TITLE_CHARACTERS, Notification, Record

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
ids = text.map(lambda each: each[:MAX_ID_CHARACTERS])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
zones = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=zones)  # noqa: DTZ001 - bounds are naive
notifications = st.builds(
    Notification,
    id=text.map(lambda each: each[:64]),
    from_id=ids,
    to_id=ids,
    message=text.map(lambda each: each[:MAX_MESSAGE_CHARACTERS]),
    title=st.none() | text.map(lambda each: each[:MAX_TITLE_CHARACTERS]),
    data=st.none() | st.dictionaries(text, json_values, max_size=3),
    channels=st.none() | st.lists(text.map(lambda each: each[:63]), min_size=1, max_size=16),
    expires_at=st.none() | moments,
)


@given(notifications, moments)
def test_what_is_encoded_is_decoded_to_the_same(notification: Notification, accepted_at: datetime) -> None:
    encoded = encode(notification, source="/p/n/x", traceparent=make_traceparent(), accepted_at=accepted_at)
    assert decode(encoded.value) == notification
    assert encoded.key.decode() == notification.to_id
    record = Record("t", 0, 0, 0, encoded.key, encoded.value, tuple(encoded.headers))
    assert accepted_at_of(record, now=datetime.max.replace(tzinfo=UTC)) == accepted_at
    assert record.header("ce_time") == accepted_at.astimezone(UTC).isoformat().encode()
    assert trace_id_of(record.header("traceparent")) is not None


@given(st.none() | st.binary(max_size=200) | json_values.map(repr).map(str.encode))
def test_garbage_raises_nothing_but_a_message_error(value: bytes | None) -> None:
    with contextlib.suppress(MessageError):
        decode(value)


@given(notifications, st.data())
def test_a_damaged_value_is_decoded_or_refused_and_never_anything_else(notification: Notification, data: Any) -> None:
    value = bytearray(encode(notification, source="s", traceparent="", accepted_at=datetime.now(UTC)).value)
    position = data.draw(st.integers(0, len(value) - 1))
    value[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MessageError):
        decode(bytes(value))


@given(st.binary(max_size=80) | st.none(), st.integers(-(2**63), 2**63 - 1))
def test_any_header_gives_a_moment_that_has_been(header: bytes | None, timestamp_ms: int) -> None:
    record = Record("t", 0, 0, timestamp_ms, None, None, (("ce_time", header),))
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert accepted_at_of(record, now=now) <= now


@given(st.text(max_size=80))
def test_any_incoming_trace_gives_a_valid_one(incoming: str) -> None:
    assert trace_id_of(make_traceparent(incoming)) is not None
