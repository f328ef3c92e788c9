"""An issuer's keys: which are believed, and how they are fetched."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm

from gates import Clock
from issuer import Issuer, build_jwk, make_private_key, serving
from tocsin_ingestion.auth.fetching import MAX_BYTES, FetchError, fetch
from tocsin_ingestion.auth.key_set import KeySet, KeySetError, parse_key_set

GOOD = build_jwk("ES256")


def test_the_keys_that_sign_are_taken_and_the_others_left() -> None:
    private = dict(ECAlgorithm.to_jwk(make_private_key("ES256"), as_dict=True)) | {"kid": "private"}
    others: list[dict[str, Any]] = [
        build_jwk("RS256", "encrypts", use="enc"),
        build_jwk("RS256", "wraps", alg="RSA-OAEP"),
        build_jwk("RS256", "small", bits=1024),
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": "EC", "crv": "secp256k1", "kid": "coin", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "kid": "broken", "x": "AA", "y": "AA"},
        {"kid": 7} | {key: value for key, value in GOOD.items() if key != "kid"},
        private,
        {},
    ]
    assert set(parse_key_set(json.dumps({"keys": [*others, GOOD]}).encode())) == {"a"}


def test_a_key_without_an_algorithm_verifies_what_its_kind_can() -> None:
    key = parse_key_set(json.dumps({"keys": [build_jwk("RS256", alg=None, use=None)]}).encode())["a"]
    assert key.algorithms == ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a JSON object"),
        (b"<html>", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"a":' * 5_000, "not a JSON object"),
        (b"{}", "is this the issuer's jwks_uri"),
        (b'{"keys": {}}', "is this the issuer's jwks_uri"),
        (b'{"keys": [1]}', "is this the issuer's jwks_uri"),
        (b'{"keys": []}', "none of its 0 keys"),
        (json.dumps({"keys": [GOOD] * 101}).encode(), "more than 100 keys"),
    ],
)
def test_what_is_no_key_set_is_named(content: bytes, words: str) -> None:
    with pytest.raises(KeySetError, match=words):
        parse_key_set(content)


async def test_those_who_ask_at_once_wait_for_one_answer() -> None:
    asked = 0
    may_answer = threading.Event()

    def answer(url: str) -> bytes:
        nonlocal asked
        del url
        asked += 1
        may_answer.wait(10)
        return json.dumps({"keys": [GOOD]}).encode()

    keys = KeySet("https://id.example.org/keys", fetch=answer)
    asking = [asyncio.create_task(keys.ask()) for _ in range(10)]
    await asyncio.sleep(0)
    asking.pop().cancel()
    may_answer.set()
    await asyncio.gather(*asking)
    assert asked == 1
    assert keys.find("a") is not None


async def test_the_keys_are_read_anew_every_five_minutes_and_sooner_after_a_failure() -> None:
    clock = Clock()
    with serving(Issuer(GOOD)) as issuer:
        keys = KeySet(issuer.url, clock=clock)
        for pause_seconds, status, asked in (
            (0, 200, 1),
            (299, 200, 1),
            (2, 500, 2),
            (4, 500, 2),
            (2, 200, 3),
            (9, 200, 3),
        ):
            clock.now += pause_seconds
            issuer.status = status
            await keys.refresh()
            assert issuer.asked == asked
    assert keys.version == 1
    assert keys.check() == ""


@pytest.mark.parametrize("status", [404, 500, 204])
def test_an_answer_that_is_none_is_an_error(status: int) -> None:
    with serving(Issuer(GOOD, status=status)) as issuer, pytest.raises(FetchError, match=f"answered {status}"):
        fetch(issuer.url)


def test_a_redirect_is_not_followed_and_named() -> None:
    words = "write the address it redirects to, http://"
    with serving(Issuer(GOOD, status=302)) as issuer, pytest.raises(FetchError, match=words):
        fetch(issuer.url)
    assert issuer.asked == 1


def test_a_document_that_is_too_large_is_not_read_to_its_end() -> None:
    with serving(Issuer({"x": "x" * MAX_BYTES})) as issuer, pytest.raises(FetchError, match="larger than"):
        fetch(issuer.url)


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(FetchError, match="no answer"):
        fetch("http://127.0.0.1:1/keys")
