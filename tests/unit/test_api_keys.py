"""What is a key, what of it is kept, and what a Secret may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_core.api_keys import ApiKeyError, check_name, digest_key, hash_key, make_key, parse_entries, parse_hash


def test_a_new_key_is_recognised_by_its_hash_alone() -> None:
    key = make_key()
    assert parse_hash(hash_key(key)) == digest_key(key.encode())
    assert key not in hash_key(key)


def test_keys_are_random() -> None:
    keys = {make_key() for _ in range(200)}
    assert len(keys) == 200
    assert all(hash_key(key) for key in keys)


@pytest.mark.parametrize("text", ["", "hunter2", "tcs_", "tcs_short", "x" * 47, "tcs_" + "é" * 43, "tcs_" + "b" * 44])
def test_what_is_no_key_is_not_hashed_and_not_repeated(text: str) -> None:
    with pytest.raises(ApiKeyError, match=r"tocsin keys create") as caught:
        hash_key(text)
    assert not text or text not in str(caught.value) or text == "tcs_"


def test_a_key_that_a_person_made_up_is_refused() -> None:
    with pytest.raises(ApiKeyError, match="too easy to guess"):
        hash_key("tcs_" + "password" * 5 + "123")


@given(st.binary(max_size=100))
def test_only_what_has_the_form_of_a_key_is_digested(presented: bytes) -> None:
    assert (digest_key(presented) is None) or (len(presented) == 47 and presented.startswith(b"tcs_"))


def test_a_key_in_plain_text_is_refused_with_what_to_do_and_not_repeated() -> None:
    key = make_key()
    digests, wrong = parse_entries({"billing": hash_key(key), "shop": key})
    assert set(digests) == {"billing"}
    assert "make a new key" in wrong["shop"]
    assert key not in wrong["shop"]


@pytest.mark.parametrize("text", ["", "hunter2", "sha256:", "sha256:" + "g" * 64, "sha1:" + "a" * 64, "a" * 64])
def test_what_is_no_hash_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ApiKeyError, match="must be sha256: and 64 hexadecimal digits"):
        parse_hash(text)


def test_a_key_under_two_names_is_refused_under_the_second() -> None:
    same = hash_key(make_key())
    digests, wrong = parse_entries({"b": same, "a": same})
    assert set(digests) == {"a"}
    assert "the same key as a" in wrong["b"]


@pytest.mark.parametrize("name", ["", "a b", "..data", ".hidden", "a/b", "n" * 254, "é"])
def test_a_name_that_no_secret_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ApiKeyError, match="a name is"):
        check_name(name)
