"""What a value in Redis and an answer over HTTP say of a user."""

from __future__ import annotations

from typing import Any

import pytest

from tocsin_core.directory.http_source import MAX_PROFILE_BYTES, build_url, read_answer
from tocsin_core.directory.redis_source import read_value
from tocsin_core.users import DirectoryError, DirectoryUnavailable, Profile, ProfileInvalid, parse_profile

ADA = b'{"name": "Ada", "email": "ada@example.org", "locale": "en", "devices": [{"type": "fcm", "token": "abc"}]}'
PAGE = b"<html>Sign in</html>"


def test_a_profile_in_json_has_the_fields_of_an_entry_of_the_file() -> None:
    devices = ({"type": "fcm", "token": "abc"},)
    assert parse_profile("2", ADA) == Profile(id="2", name="Ada", email="ada@example.org", locale="en", devices=devices)


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        (b"{}", Profile(id="2")),
        (b'{"name": "", "email": null}', Profile(id="2")),
        (b'{"id": "3", "name": "Ada", "team": "blue"}', Profile(id="2", name="Ada")),
    ],
)
def test_a_field_left_empty_is_left_out_and_one_nobody_asked_for_is_ignored(text: bytes, profile: Profile) -> None:
    assert parse_profile("2", text) == profile


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (b'{"name": ["Ada"]}', ProfileInvalid, "user '2'.*name"),
        (b'{"devices": "phone"}', ProfileInvalid, "user '2'.*devices"),
        (b'"Ada"', DirectoryError, "user '2': a profile is an object"),
        (b"null", DirectoryError, "user '2': a profile is an object"),
        (b"", DirectoryError, "not JSON"),
        (b"\xff", DirectoryError, "not JSON"),
        (b"[" * 100_000, DirectoryError, "not JSON"),
    ],
)
def test_what_is_no_profile_is_refused_with_the_user_and_the_reason(
    text: bytes, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        parse_profile("2", text)


def test_no_value_is_no_user_and_a_broken_value_is_one_user_s_trouble() -> None:
    assert read_value("2", None) is None
    assert read_value("2", ADA) == parse_profile("2", ADA)
    for broken in (PAGE, b"[]", b'{"email": 1}'):
        assert isinstance(read_value("2", broken), ProfileInvalid)


def test_200_is_a_profile_and_404_no_such_user() -> None:
    assert read_answer("2", 200, ADA) == parse_profile("2", ADA)
    assert read_answer("2", 404, b"") is None
    assert isinstance(read_answer("2", 200, b'{"email": 1}'), ProfileInvalid)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        *((status, b"", f"HTTP {status}") for status in (201, 204, 301, 302, 400, 401, 403, 410, 429, 500, 503)),
        (200, PAGE, "without a profile"),
        (200, b"", "without a profile"),
        (200, b"[]", "without a profile"),
        (200, None, f"more than {MAX_PROFILE_BYTES} bytes"),
    ],
)
def test_everything_else_is_no_answer(status: int, body: Any, words: str) -> None:
    with pytest.raises(DirectoryUnavailable, match=words):
        read_answer("2", status, body)


@pytest.mark.parametrize(
    ("user_id", "url"),
    [
        ("2", "http://u/users/2?full=1"),
        ("a b", "http://u/users/a%20b?full=1"),
        ("../admin?x#y", "http://u/users/..%2Fadmin%3Fx%23y?full=1"),
        ("é", "http://u/users/%C3%A9?full=1"),
        ("{id}", "http://u/users/%7Bid%7D?full=1"),
    ],
)
def test_an_id_stays_one_piece_of_the_address(user_id: str, url: str) -> None:
    assert build_url("http://u/users/{id}?full=1", user_id) == url
