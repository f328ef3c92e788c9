"""Tokens: real signatures over real claims, verified with keys that a real HTTP server gave out."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gates import Clock
from issuer import AUDIENCE, ISSUER, Issuer, build_jwk, make_private_key, serving, sign
from tocsin_ingestion.auth.gate import Caller
from tocsin_ingestion.auth.key_set import ALGORITHMS, KeySet
from tocsin_ingestion.auth.tokens import Tokens
from tocsin_ingestion.problems import AUTH_UNAVAILABLE, UNAUTHENTICATED, Problem


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with serving(Issuer(build_jwk("ES256"))) as issuer:
        yield issuer


def tokens_of(issuer: Issuer, clock: Any = time.monotonic, **settings: Any) -> Tokens:
    changed = issuer.settings.model_copy(update=settings)
    return Tokens(changed, KeySet(issuer.url, clock=clock))


async def identify(tokens: Tokens, token: str) -> Caller:
    return await tokens.identify(f"Bearer {token}".encode(), None)


async def refusal(tokens: Tokens, token: str) -> Problem:
    with pytest.raises(Problem) as caught:
        await identify(tokens, token)
    assert token[-40:] not in str(caught.value.build_details())
    return caught.value


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_every_asymmetric_algorithm_is_verified(algorithm: str) -> None:
    with serving(Issuer(build_jwk(algorithm))) as issuer:
        caller = await identify(tokens_of(issuer), sign(algorithm))
        forged = sign(algorithm, headers={"kid": "a"}, name="somebody else")
        problem = await refusal(tokens_of(issuer), forged)
    assert (caller.name, caller.listens_as) == ("2", "2")
    assert "signature is wrong" in problem.detail


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": 1}, "has expired"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"iat": 4_000_000_000}, "not valid yet"),
        ({"iss": "https://evil.example.org"}, f"iss must be {ISSUER}"),
        ({"iss": f"{ISSUER}/"}, f"iss must be {ISSUER}"),
        ({"aud": "others"}, f"aud must hold {AUDIENCE}"),
        ({"aud": ["others"]}, f"aud must hold {AUDIENCE}"),
        ({"exp": None}, "lacks one of exp"),
        ({"iss": None}, "lacks one of exp"),
        ({"aud": None}, "aud"),
        ({"sub": None}, "lacks one of exp"),
        ({"sub": ""}, "1 to 255 characters"),
        ({"sub": "s" * 256}, "1 to 255 characters"),
        ({"exp": "soon"}, "cannot be read"),
        ({"exp": float("inf")}, "cannot be read"),
    ],
)
async def test_claims_that_are_not_for_us_are_refused_with_the_reason(
    issuer: Issuer, claims: dict[str, Any], words: str
) -> None:
    problem = await refusal(tokens_of(issuer), sign(**claims))
    assert problem.kind is UNAUTHENTICATED
    assert words in problem.detail
    assert 'error="invalid_token"' in dict(problem.headers)["www-authenticate"]


async def test_a_token_for_several_audiences_is_for_us_too(issuer: Issuer) -> None:
    assert (await identify(tokens_of(issuer), sign(aud=["others", AUDIENCE]))).name == "2"


async def test_clocks_may_differ_by_the_leeway_and_no_more(issuer: Issuer) -> None:
    late = sign(exp=int(time.time()) - 20)
    assert (await identify(tokens_of(issuer), late)).name == "2"
    assert "has expired" in (await refusal(tokens_of(issuer, leeway_seconds=5), late)).detail


async def test_with_the_public_key_as_a_secret_nobody_gets_in(issuer: Issuer) -> None:
    # By hand: the library refuses to make such a token.
    parts = {"alg": "HS256", "kid": "a"}, {"iss": ISSUER, "aud": AUDIENCE, "sub": "2", "exp": 1e10}
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    public = make_private_key("ES256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = base64.urlsafe_b64encode(hmac.digest(public, signed, "sha256")).rstrip(b"=")
    forged = b".".join((signed, signature)).decode()
    assert "alg is not one of" in (await refusal(tokens_of(issuer), forged)).detail


async def test_an_unsigned_token_is_refused(issuer: Issuer) -> None:
    unsigned = jwt.encode({"sub": "2"}, "", "none", {"kid": "a"})
    assert "alg is not one of" in (await refusal(tokens_of(issuer), unsigned)).detail


async def test_a_key_verifies_only_what_its_kind_signs() -> None:
    with serving(Issuer(build_jwk("RS256"))) as issuer:
        problem = await refusal(tokens_of(issuer), sign("PS256", "other", headers={"kid": "a"}))
    assert problem.kind is UNAUTHENTICATED
    assert "alg is not one that its key allows" in problem.detail


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "a.b.c", "..", "é", "e30.e30.", "[" * 5_000),
        *(base64.b64encode(b'{"alg":%b}' % alg).decode() + ".e30.x" for alg in (b"1", b"[]", b"{}", b"null")),
    ],
)
async def test_what_is_no_token_is_refused(issuer: Issuer, text: str) -> None:
    with pytest.raises(Problem) as caught:
        await identify(tokens_of(issuer), text)
    assert caught.value.kind is UNAUTHENTICATED


async def test_a_token_that_is_too_large_or_asks_for_extensions_is_refused(issuer: Issuer) -> None:
    assert "larger than" in (await refusal(tokens_of(issuer), sign(padding="x" * 9_000))).detail
    extended = sign(headers={"crit": ["b64"], "b64": True})
    assert (await refusal(tokens_of(issuer), extended)).kind is UNAUTHENTICATED


@pytest.mark.parametrize(
    ("claims", "missing"),
    [
        ({}, "send"),
        ({"scope": "read send"}, ""),
        ({"scp": ["send"]}, ""),
        ({"scope": "sender"}, "send"),
        ({"scp": 7}, "send"),
    ],
)
async def test_posting_may_take_a_scope(issuer: Issuer, claims: dict[str, Any], missing: str) -> None:
    caller = await identify(tokens_of(issuer, send_scope="send"), sign(**claims))
    assert caller.missing_scope == missing


async def test_a_verified_token_is_known_until_it_expires(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Clock(time.time())
    tokens = Tokens(issuer.settings, KeySet(issuer.url), clock=wall)
    header = f"Bearer {sign()}".encode()
    await tokens.identify(header, None)
    with monkeypatch.context() as patch:
        patch.setattr(jwt, "decode", None)  # whoever verifies now fails
        caller = tokens.try_identify(header, None)
    assert caller is not None
    assert caller.expires_at == pytest.approx(wall.now + 630, abs=2)
    wall.now += 700
    patched = {"sub": "somebody else", "exp": wall.now + 10}
    monkeypatch.setattr("tocsin_ingestion.auth.tokens.decode", lambda *_: patched)
    again = tokens.try_identify(header, None)
    assert again is not None
    assert again.name == "somebody else"


async def test_what_is_known_is_bounded_and_dropped_when_the_issuers_keys_change(issuer: Issuer) -> None:
    clock = Clock()
    tokens = Tokens(issuer.settings, KeySet(issuer.url, clock=clock), max_known=2)
    first = sign()
    for number in range(4):
        await identify(tokens, sign(jti=str(number)))
    await identify(tokens, first)
    assert len(tokens._known) == 2
    issuer.keys = [build_jwk("ES256", "b")]
    clock.now += 301
    await tokens.refresh()
    assert "no key of the issuer" in (await refusal(tokens, first)).detail


async def test_a_new_key_is_asked_for_at_once_and_an_unknown_one_not_again_and_again(issuer: Issuer) -> None:
    clock = Clock()
    tokens = tokens_of(issuer, clock)
    await identify(tokens, sign())
    issuer.keys.append(build_jwk("ES256", "b"))
    clock.now += 11
    assert (await identify(tokens, sign(name="b"))).name == "2"
    assert issuer.asked == 2
    for _ in range(5):
        assert "no key of the issuer" in (await refusal(tokens, sign(name="c"))).detail
    assert issuer.asked == 2
    clock.now += 11
    await refusal(tokens, sign(name="c"))
    assert issuer.asked == 3


async def test_a_token_without_a_key_name_is_verified_where_there_is_one_key(issuer: Issuer) -> None:
    nameless = jwt.encode(
        {"iss": ISSUER, "aud": AUDIENCE, "sub": "2", "exp": time.time() + 60}, make_private_key("ES256"), "ES256"
    )
    assert (await identify(tokens_of(issuer), nameless)).name == "2"
    issuer.keys.append(build_jwk("ES256", "b"))
    assert "no key of the issuer" in (await refusal(tokens_of(issuer), nameless)).detail


async def test_keys_that_were_never_read_are_our_fault(issuer: Issuer) -> None:
    issuer.status = 500
    tokens = tokens_of(issuer)
    assert (await refusal(tokens, sign())).kind is AUTH_UNAVAILABLE
    assert "answered 500" in tokens.check()
    assert (await refusal(tokens, "hunter2.hunter2.hunter2")).kind is UNAUTHENTICATED


async def test_an_issuer_that_is_away_does_not_matter_for_a_day(issuer: Issuer) -> None:
    clock = Clock()
    tokens = tokens_of(issuer, clock)
    token = sign()
    await identify(tokens, token)
    issuer.status = 503
    clock.now += 86_000
    await tokens.refresh()
    assert (await identify(tokens, token)).name == "2"
    assert (await identify(tokens, sign(jti="new"))).name == "2"
    # Perhaps it has a new key that we cannot see: that is not the caller's fault.
    assert (await refusal(tokens, sign(name="b"))).kind is AUTH_UNAVAILABLE
    clock.now += 1_000
    assert (await refusal(tokens, token)).kind is AUTH_UNAVAILABLE
    issuer.status = 200
    clock.now += 11
    assert (await identify(tokens, token)).name == "2"
