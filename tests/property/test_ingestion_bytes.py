"""Whatever bytes arrive, ingestion answers; and what it would accept, the consumer's decoder can read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from hypothesis import example, given
from hypothesis import strategies as st

from tocsin_core.codec import decode, encode, make_traceparent
from tocsin_core.message import MAX_BODY_BYTES
from tocsin_ingestion.draft import Draft, Rules
from tocsin_ingestion.idempotency import fingerprint
from tocsin_ingestion.problems import Problem
from tocsin_ingestion.validation import parse_batch, parse_notification

NOW = datetime(2026, 11, 23, tzinfo=UTC)
RULES = Rules(channels=("push",))
CONTENT_TYPES = st.sampled_from(
    ["application/json", "application/x-www-form-urlencoded", "application/x-ndjson", "", "x"]
)

GOOD: dict[str, Any] = {"fromID": 1, "toID": 2, "message": "hi"}
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ids = st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1) | st.text(min_size=1, max_size=128) | scalars
almost_notifications = st.fixed_dictionaries(
    {"fromID": ids, "toID": ids, "message": st.text(min_size=1) | values},
    optional={
        "title": st.text(min_size=1, max_size=300) | values,
        "data": st.dictionaries(st.text(), values, max_size=4) | values,
        "channels": st.lists(st.sampled_from(["push", "fax"])) | values,
        "expiresAt": st.datetimes(timezones=st.timezones() | st.none()).map(datetime.isoformat) | values,
        "unknown": values,
    },
)


def to_bytes(value: Any) -> bytes:
    # allow_nan and surrogatepass on purpose: what Python writes carelessly must be refused, not crash.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def parse_alone(body: bytes) -> Draft | str:
    try:
        return parse_notification(body, "application/json", rules=RULES, now=NOW)
    except Problem as problem:
        return problem.detail


@given(st.lists(almost_notifications | st.just(GOOD), min_size=1, max_size=4))
@example([GOOD, GOOD | {"data": {"a": [[]] * 40}}])
@example([GOOD, GOOD | {"data": json.loads("[" * 40 + "]" * 40)}])
@example([GOOD, GOOD | {"channels": ["fax"]}])
@example([GOOD, GOOD | {"data": {"a": "x" * MAX_BODY_BYTES}}])
def test_an_item_of_a_batch_is_what_it_would_be_alone(items: list[Any]) -> None:
    bodies = [to_bytes(item) for item in items]
    alone = [parse_alone(body) for body in bodies]
    for batch, media in ((b"\n".join(bodies), "ndjson"), (b"[" + b",".join(bodies) + b"]", "json")):
        try:
            found = parse_batch(
                batch, "application/x-ndjson" if media == "ndjson" else "application/json", rules=RULES, now=NOW
            )
        except Problem:
            assert media == "json"  # an array that holds what is no text is no array
            continue
        assert [each.detail if isinstance(each, Problem) else each for each in found] == alone


def check(draft: Draft) -> None:
    notification = draft.build_notification("an-id")
    record = encode(notification, source="/s", traceparent=make_traceparent(), accepted_at=NOW)
    assert decode(record.value) == notification
    assert record.key == str(draft.to_id).encode()
    assert fingerprint(draft)


@given(st.binary() | almost_notifications.map(to_bytes) | values.map(to_bytes), CONTENT_TYPES)
@example(b'{"fromID":1,"toID":2,"message":"hi","data":{"a":' + b"9" * 4_000 + b"}}", "application/json")
@example(b'{"fromID":1,"toID":2,"message":"hi","data":{"a":1e999}}', "application/json")
@example(b'{"fromID":1,"toID":2,"message":"hi","expiresAt":"9999-12-31T23:59:59-23:59"}', "application/json")
@example(b'{"fromID":1,"toID":2,"message":"hi","expiresAt":"0001-01-01T00:00:00+23:59"}', "application/json")
def test_one_body_is_a_problem_or_a_notification_that_the_decoder_reads(body: bytes, content_type: str) -> None:
    draft = outcome(body, content_type)
    if isinstance(draft, Draft):
        check(draft)
    else:
        assert draft in (400, 413, 415, 422)


@given(
    st.binary()
    | st.lists(almost_notifications | values, max_size=5).map(to_bytes)
    | st.lists((almost_notifications | values).map(to_bytes), max_size=5).map(b"\n".join),
    CONTENT_TYPES,
)
def test_a_batch_is_a_problem_or_one_result_per_item(body: bytes, content_type: str) -> None:
    for result in outcomes(body, content_type):
        if isinstance(result, Draft):
            check(result)
        else:
            assert result.kind.status in (400, 413, 415, 422)


@given(st.fixed_dictionaries({"fromID": ids, "toID": ids, "message": st.text()}))
def test_a_form_says_the_same_as_the_json_of_its_strings(fields: dict[str, Any]) -> None:
    texts = {name: str(value) for name, value in fields.items()}
    form = urlencode(texts, errors="surrogatepass").encode()
    assert outcome(form, "application/x-www-form-urlencoded") == outcome(to_bytes(texts), "application/json")


def outcome(body: bytes, content_type: str) -> Draft | int:
    assert len(body) < MAX_BODY_BYTES
    try:
        return parse_notification(body, content_type, rules=RULES, now=NOW)
    except Problem as problem:
        return problem.kind.status


def outcomes(body: bytes, content_type: str) -> list[Draft | Problem]:
    try:
        return parse_batch(body, content_type, rules=RULES, now=NOW)
    except Problem as problem:
        return [problem]
