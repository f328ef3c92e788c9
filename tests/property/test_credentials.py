"""Whatever somebody presents: a known caller or a refusal, never a failure, and never one caller for another."""

from __future__ import annotations

import asyncio
import json
import tempfile
from functools import cache
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gates import GOOD_KEY, build_key_ring
from issuer import AUDIENCE, ISSUER, build_jwk, sign
from tocsin_core.settings import JWTSettings
from tocsin_ingestion.auth.gate import Checker
from tocsin_ingestion.auth.key_ring import KeyRing
from tocsin_ingestion.auth.key_set import KeySet
from tocsin_ingestion.auth.tokens import Tokens
from tocsin_ingestion.problems import UNAUTHENTICATED, Kind, Problem

GOOD_TOKEN = sign(sub="2", exp=4_000_000_000)
values = st.none() | st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"Bearer " + tail)


@cache
def ring() -> KeyRing:
    with tempfile.TemporaryDirectory() as folder:
        return build_key_ring(Path(folder) / "keys")


@cache
def tokens() -> Tokens:
    settings = JWTSettings(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://id.example.org/keys")
    keys = KeySet(settings.jwks_url, fetch=lambda _: json.dumps({"keys": [build_jwk("ES256")]}).encode())
    asyncio.run(keys.ask())
    return Tokens(settings, keys)


def damage(text: str) -> st.SearchStrategy[bytes]:
    """Return texts that differ from this one in a character, or are cut off."""
    positions = st.integers(0, len(text) - 1)
    changed = st.tuples(positions, st.characters(codec="latin-1")).map(
        lambda change: text[: change[0]] + change[1] + text[change[0] + 1 :]
    )
    return (changed | positions.map(lambda end: text[:end])).map(lambda each: b"Bearer " + each.encode("latin-1"))


def judge(checker: Checker, authorization: bytes | None, api_key: bytes | None = None) -> str | Kind | None:
    """Return who calls, or what kind of refusal it is; None is a token whose key the issuer would be asked for."""
    try:
        caller = checker.try_identify(authorization, api_key)
    except Problem as problem:
        return problem.kind
    return None if caller is None else caller.name


@settings(deadline=None)  # the first example makes keys
@given(values, values)
@example(f"Bearer {GOOD_KEY}".encode(), None)
@example(None, GOOD_KEY.encode())
@example(GOOD_KEY.encode(), GOOD_KEY.encode())
def test_an_api_key_is_known_or_refused(authorization: bytes | None, api_key: bytes | None) -> None:
    is_good = (authorization, api_key) in ((f"Bearer {GOOD_KEY}".encode(), None), (None, GOOD_KEY.encode()))
    assert judge(ring(), authorization, api_key) == ("billing" if is_good else UNAUTHENTICATED)


@settings(deadline=None)  # the first example makes keys
@given(damage(GOOD_KEY))
def test_a_damaged_key_is_refused_unless_it_is_the_same(authorization: bytes) -> None:
    is_good = authorization == f"Bearer {GOOD_KEY}".encode()
    assert judge(ring(), authorization) == ("billing" if is_good else UNAUTHENTICATED)


@settings(deadline=None)  # the first example makes keys
@given(values | damage(GOOD_TOKEN))
@example(f"Bearer {GOOD_TOKEN}".encode())
def test_a_damaged_token_is_refused_and_never_somebody_elses(authorization: bytes | None) -> None:
    # The last character of a signature holds bits that mean nothing, so a damaged token may still be the same.
    assert judge(tokens(), authorization) in ("2", UNAUTHENTICATED, None)
