from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tocsin_core.message import MAX_BODY_BYTES
from tocsin_ingestion.draft import MAX_DEPTH, MAX_NAME_CHARACTERS, MAX_NAMED_ERRORS, Draft, Rules
from tocsin_ingestion.problems import Problem
from tocsin_ingestion.validation import MAX_BATCH_BYTES, MAX_BATCH_ITEMS, parse_batch, parse_notification

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = Rules(channels=("push", "mail"))
GOOD: dict[str, Any] = {"fromID": 1, "toID": "2", "message": "hi"}


def parse(body: bytes | dict[str, Any], content_type: str | None = "application/json") -> Draft:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_notification(content, content_type, rules=RULES, now=NOW)


def refusal(body: bytes | dict[str, Any], content_type: str | None = "application/json") -> Problem:
    with pytest.raises(Problem) as caught:
        parse(body, content_type)
    return caught.value


def fields(problem: Problem) -> list[str]:
    return [error.field for error in problem.errors]


def test_the_smallest_notification_is_accepted() -> None:
    notification = parse(GOOD).build_notification("n")
    assert (notification.from_id, notification.to_id, notification.message) == ("1", "2", "hi")


def test_the_integer_and_the_string_name_the_same_user() -> None:
    as_integer = parse(GOOD | {"toID": 2}).build_notification("n")
    as_string = parse(GOOD | {"toID": "2"}).build_notification("n")
    assert as_integer == as_string


def test_everything_optional_travels() -> None:
    body = GOOD | {
        "title": "T",
        "data": {"a": [1, {"b": None}]},
        "channels": ["push"],
        "expiresAt": "2030-01-01T00:00:00Z",
    }
    notification = parse(body).build_notification("n")
    assert notification.data == {"a": [1, {"b": None}]}
    assert notification.channels == ["push"]
    assert notification.expires_at == datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"toID": True}, "toID"),
        ({"toID": 2.0}, "toID"),
        ({"toID": None}, "toID"),
        ({"toID": ""}, "toID"),
        ({"toID": "x" * 129}, "toID"),
        ({"fromID": 2**63}, "fromID"),
        ({"fromID": [1]}, "fromID"),
        ({"message": ""}, "message"),
        ({"message": 7}, "message"),
        ({"message": "x" * 32_769}, "message"),
        ({"title": ""}, "title"),
        ({"data": [1]}, "data"),
        ({"channels": []}, "channels"),
        ({"channels": ["push", 1]}, "channels[1]"),
        ({"channels": ["fax"]}, "channels[0]"),
        ({"channels": ["push", "push"]}, "channels"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
        ({"expiresAt": "2030-01-01T00:00:00"}, "expiresAt"),
        ({"expiresAt": "2026-11-23T12:00:00Z"}, "expiresAt"),
        ({"toid": 2}, "toid"),
        ({"id": "mine"}, "id"),
    ],
    ids=str,
)
def test_a_wrong_field_is_a_422_that_names_it(change: dict[str, Any], field: str) -> None:
    problem = refusal(GOOD | change)
    assert problem.kind.status == 422
    assert fields(problem) == [field]


def test_all_faults_are_named_at_once() -> None:
    problem = refusal({"fromID": True, "message": "", "colour": "red"})
    assert fields(problem) == ["toID", "fromID", "message", "colour"]


def test_a_misspelt_field_is_answered_with_the_right_one() -> None:
    assert "did you mean toID?" in refusal(GOOD | {"toId": 3}).detail


def test_of_thousands_of_unknown_fields_few_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def note(word: str, *_: object, n: int) -> list[str]:
        asked.append(word)
        return ["message"][:n]

    monkeypatch.setattr("difflib.get_close_matches", note)
    problem = refusal(GOOD | {f"{number}-{'x' * 200}": 1 for number in range(1_000)})
    assert len(problem.errors) == len(asked) == MAX_NAMED_ERRORS
    assert max(map(len, asked)) == MAX_NAME_CHARACTERS


def test_an_unknown_channel_is_answered_with_the_known_ones() -> None:
    assert "push, mail" in refusal(GOOD | {"channels": ["fax"]}).detail


def test_a_fault_in_a_repeated_key_is_found_though_the_last_one_is_right() -> None:
    assert refusal(b'{"fromID":1,"toID":true,"toID":2,"message":"hi"}').kind.status == 422


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"hello",
        b'{"fromID":1,"toID":2,"message":"hi"} x',
        b'{"fromID":1,"toID":2,"message":"\xff"}',
        b'{"fromID":1,"toID":2,"message":"\\ud800"}',
        b'{"fromID":1,"toID":2,"message":"hi","data":{"a":NaN}}',
        b'{"fromID":1,"toID":2,"message":"hi","data":{"a":Infinity}}',
        b'{"fromID":1,"toID":2,"message":"hi","data":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"data":' + b"[" * 100_000,
        b'\xef\xbb\xbf{"fromID":1,"toID":2,"message":"hi"}',
    ],
    ids=lambda body: repr(body[:60]),
)
def test_what_is_not_json_is_a_400(body: bytes) -> None:
    assert refusal(body).kind.status == 400


@pytest.mark.parametrize("body", [b"[]", b"1", b'"hi"', b"null"])
def test_json_that_is_no_object_is_a_422(body: bytes) -> None:
    assert refusal(body).kind.status == 422


def nest(levels: int) -> dict[str, Any]:
    inner: Any = 1
    for _ in range(levels - 2):
        inner = [inner]
    return GOOD | {"data": {"a": inner}}


def test_data_may_nest_up_to_the_limit_and_no_deeper() -> None:
    assert parse(nest(MAX_DEPTH)).data
    problem = refusal(nest(MAX_DEPTH + 1))
    assert fields(problem) == ["data"]


def test_wide_data_is_not_deep_data() -> None:
    assert parse(GOOD | {"data": {"a": [[1]] * 100}}).data


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-ndjson",
        "application/json; charset=latin-1",
    ],
)
def test_another_content_type_is_a_415(content_type: str | None) -> None:
    assert refusal(GOOD, content_type).kind.status == 415


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "Application/JSON", ' application/json;charset="utf-8"']
)
def test_spellings_of_the_json_content_type_are_read(content_type: str) -> None:
    assert parse(GOOD, content_type).message == "hi"


def test_a_body_above_the_limit_is_a_413() -> None:
    assert refusal(b" " * (MAX_BODY_BYTES + 1)).kind.status == 413


FORM = "application/x-www-form-urlencoded"


def test_the_form_of_the_original_design_is_read() -> None:
    notification = parse(b"fromID=1&toID=2&message=caf%C3%A9+%26+tea", FORM).build_notification("n")
    assert (notification.from_id, notification.to_id, notification.message) == ("1", "2", "café & tea")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"fromID=1&toID=2", 422),
        (b"fromID=1&toID=2&message=", 422),
        (b"fromID=1&toID=2&message=hi&colour=red", 422),
        (b"fromID=1&toID=2&toID=3&message=hi", 422),
        (b"fromID=1&toID=2&message=%FF", 400),
        (b"fromID=1&toID=2&message=\xff", 400),
        (b"fromID", 400),
        (b"", 422),
        (b"&".join([b"a=1"] * 100), 400),
        (b'{"fromID":1,"toID":2,"message":"hi"}', 400),
    ],
)
def test_a_wrong_form_is_refused(body: bytes, status: int) -> None:
    assert refusal(body, FORM).kind.status == status


def test_json_sent_as_a_form_is_told_which_header_is_missing() -> None:
    assert "Content-Type: application/json" in refusal(b'{"fromID":1}', FORM).detail


def batch(body: bytes, content_type: str = "application/json") -> list[int]:
    results = parse_batch(body, content_type, rules=RULES, now=NOW)
    return [result.kind.status if isinstance(result, Problem) else 202 for result in results]


def batch_refusal(body: bytes, content_type: str = "application/json") -> Problem:
    with pytest.raises(Problem) as caught:
        batch(body, content_type)
    return caught.value


def test_each_item_of_an_array_has_its_own_result() -> None:
    body = json.dumps([GOOD, GOOD | {"toID": True}, 5, GOOD | {"channels": ["fax"]}]).encode()
    assert batch(body) == [202, 422, 422, 422]


def test_each_line_of_ndjson_has_its_own_result_and_blank_lines_are_skipped() -> None:
    line = json.dumps(GOOD).encode()
    assert batch(line + b"\r\n\n{oops\n" + line + b"\n", "application/x-ndjson") == [202, 400, 202]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"[", "application/json", 400),
        (b"[{}, NaN]", "application/json", 400),
        (b"{}", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"\n\n", "application/x-ndjson", 422),
        (b"[" + b",".join([b"{}"] * (MAX_BATCH_ITEMS + 1)) + b"]", "application/json", 413),
        (b" " * (MAX_BATCH_BYTES + 1), "application/json", 413),
        (b"fromID=1", FORM, 415),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_batch_that_cannot_be_read_is_refused_as_a_whole(body: bytes, content_type: str, status: int) -> None:
    assert batch_refusal(body, content_type).kind.status == status


def test_an_item_above_the_limit_of_one_body_is_refused_alone() -> None:
    large = json.dumps(GOOD | {"data": {"a": "x" * MAX_BODY_BYTES}}).encode()
    assert batch(b"[" + json.dumps(GOOD).encode() + b"," + large + b"]") == [202, 413]
