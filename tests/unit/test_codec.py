from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tocsin_core.codec import accepted_at_of, decode, encode, make_traceparent, trace_id_of
from tocsin_core.errors import MessageError
from tocsin_core.message import Notification, Record

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOON.replace(hour=13)


def notification(**changes: Any) -> Notification:
    return Notification(**{"id": "n1", "from_id": "1", "to_id": "2", "message": "hi", **changes})


def record(*headers: tuple[str, bytes | None], timestamp_ms: int = 0) -> Record:
    return Record("t", 0, 0, timestamp_ms, b"2", b"{}", headers)


def test_the_value_has_the_names_of_the_contract_and_no_defaults() -> None:
    encoded = encode(notification(), source="/pipelines/a/b", traceparent=TRACEPARENT, accepted_at=NOON)
    assert encoded.value == b'{"id":"n1","fromID":"1","toID":"2","message":"hi"}'
    assert encoded.key == b"2"


def test_the_headers_are_cloudevents_in_binary_mode_and_the_trace() -> None:
    encoded = encode(notification(), source="/pipelines/a/b", traceparent=TRACEPARENT, accepted_at=NOON)
    assert dict(encoded.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"n1",
        "ce_type": b"dev.tocsin.notification.v1",
        "ce_source": b"/pipelines/a/b",
        "ce_time": b"2026-11-23T12:00:00+00:00",
        "content-type": b"application/json",
        "traceparent": TRACEPARENT.encode(),
    }


def test_what_the_decoder_would_refuse_is_not_encoded() -> None:
    with pytest.raises(MessageError, match="message"):
        encode(notification(message=""), source="s", traceparent=TRACEPARENT, accepted_at=NOON)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no value"),
        (b"", "no value"),
        (b"{", "not a notification"),
        (b"[]", "Expected `object`"),
        (b'{"id":"1","fromID":"1","toID":"2"}', "missing required field `message`"),
        (b'{"id":"1","fromID":"1","toID":"2","message":"m","extra":1}', "unknown field `extra`"),
        (b'{"id":"1","fromID":1,"toID":"2","message":"m"}', "fromID"),
        (b'{"id":"1","fromID":"1","toID":"","message":"m"}', "toID"),
        (b'{"id":"1","fromID":"1","toID":"2","message":"\xff"}', "not a notification"),
        (b'{"id":"1","fromID":"1","toID":"2","message":"m","expiresAt":"2026-01-01T00:00:00"}', "expiresAt"),
        (b"[" * 100_000, "not a notification"),
    ],
)
def test_what_is_no_notification_is_refused_with_its_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        decode(value)


def test_an_expiry_keeps_its_instant_across_time_zones() -> None:
    expiry = datetime(2026, 11, 23, 13, tzinfo=timezone(timedelta(hours=1)))
    encoded = encode(notification(expires_at=expiry), source="s", traceparent=TRACEPARENT, accepted_at=NOON)
    assert decode(encoded.value).expires_at == NOON


def test_a_valid_traceparent_goes_on_unchanged() -> None:
    assert make_traceparent(TRACEPARENT) == TRACEPARENT
    assert trace_id_of(TRACEPARENT.encode()) == "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    "incoming",
    [
        None,
        "",
        "garbage",
        TRACEPARENT.upper(),
        TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16),
        TRACEPARENT + "\n",
        "ff" + TRACEPARENT[2:],
    ],
)
def test_anything_else_becomes_a_new_trace(incoming: str | None) -> None:
    made = make_traceparent(incoming)
    assert made != incoming
    assert trace_id_of(made) is not None


def test_two_new_traces_differ() -> None:
    assert make_traceparent() != make_traceparent()


def test_there_is_no_trace_id_in_what_is_no_traceparent() -> None:
    assert trace_id_of(b"\xff\xfe") is None
    assert trace_id_of(None) is None


def test_the_moment_of_acceptance_is_the_header_else_kafkas_timestamp() -> None:
    assert accepted_at_of(record(("ce_time", b"2026-11-23T13:00:00+01:00")), now=LATER) == NOON
    assert accepted_at_of(record(("ce_time", b"2026-11-23T12:00:00")), now=LATER) == NOON
    millis = int(NOON.timestamp() * 1000)
    for wrong in ([], [("ce_time", b"yesterday")], [("ce_time", b"\xff")], [("ce_time", None)]):
        assert accepted_at_of(record(*wrong, timestamp_ms=millis), now=LATER) == NOON


def test_a_moment_of_acceptance_that_cannot_be_is_now() -> None:
    assert accepted_at_of(record(("ce_time", b"9999-01-01T00:00:00+00:00")), now=NOON) == NOON
    for millis in (int(NOON.timestamp() * 1_000_000), 10**20, -(10**20)):
        assert accepted_at_of(record(timestamp_ms=millis), now=NOON) == NOON


def test_the_last_header_of_a_name_counts() -> None:
    assert record(("h", b"1"), ("h", b"2")).header("h") == b"2"
    assert record().header("h") is None
