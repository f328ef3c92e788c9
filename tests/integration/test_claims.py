"""Claims in a real Valkey."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import cast

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_consumer.claims import ClaimsUnavailable, Done, Granted, Held, NoClaims, RedisClaims
from tocsin_core.settings import RedisSettings


@pytest.fixture
def pipeline() -> str:
    return f"tests/{secrets.token_hex(4)}"


@pytest.fixture
async def claims(valkey: EmbeddedValkey, pipeline: str) -> AsyncIterator[RedisClaims]:
    claims = RedisClaims(RedisSettings(url=valkey.url), pipeline=pipeline, max_connections=8)
    yield claims
    await claims.close()


async def granted(claims: RedisClaims, *, lease_seconds: float = 30.0) -> Granted:
    claim = await claims.claim("n1", "hook", lease_seconds=lease_seconds)
    assert isinstance(claim, Granted)
    return claim


async def test_the_first_claim_is_granted_and_certain(claims: RedisClaims) -> None:
    assert not (await granted(claims)).is_uncertain


async def test_a_live_claim_is_held_against_others(claims: RedisClaims) -> None:
    await granted(claims)
    claim = await claims.claim("n1", "hook", lease_seconds=30)
    assert isinstance(claim, Held)
    assert 0 < claim.again_in_seconds <= 0.25


async def test_channels_and_notifications_are_claimed_apart(claims: RedisClaims) -> None:
    await granted(claims)
    assert isinstance(await claims.claim("n1", "mail", lease_seconds=30), Granted)
    assert isinstance(await claims.claim("n2", "hook", lease_seconds=30), Granted)


async def test_what_is_done_stays_done(claims: RedisClaims) -> None:
    await granted(claims)
    await claims.mark_done("n1", "hook")
    assert await claims.claim("n1", "hook", lease_seconds=30) == Done()


async def test_a_lapsed_claim_is_granted_again_as_uncertain_and_counted_in_the_store(
    claims: RedisClaims, valkey: EmbeddedValkey, pipeline: str
) -> None:
    await granted(claims, lease_seconds=0.05)
    deadline = time.monotonic() + 10
    while isinstance(claim := await claims.claim("n1", "hook", lease_seconds=30), Held):
        assert time.monotonic() < deadline
    assert isinstance(claim, Granted)
    assert claim.is_uncertain
    redis = Redis.from_url(valkey.url)
    assert await cast("Awaitable[bytes]", redis.get(f"tocsin:{{{pipeline}}}:uncertain")) == b"1"
    await redis.aclose()


async def test_a_claim_released_after_a_certain_failure_leaves_no_doubt(claims: RedisClaims) -> None:
    await claims.release("n1", "hook", await granted(claims), is_uncertain=False)
    assert not (await granted(claims)).is_uncertain


async def test_a_claim_released_after_silence_leaves_doubt(claims: RedisClaims) -> None:
    await claims.release("n1", "hook", await granted(claims), is_uncertain=True)
    assert (await granted(claims)).is_uncertain


async def test_only_the_holder_can_release_a_claim(claims: RedisClaims) -> None:
    await granted(claims)
    await claims.release("n1", "hook", Granted("somebody else"), is_uncertain=False)
    assert isinstance(await claims.claim("n1", "hook", lease_seconds=30), Held)


async def test_a_late_release_does_not_undo_what_is_done(claims: RedisClaims) -> None:
    claim = await granted(claims)
    await claims.mark_done("n1", "hook")
    await claims.release("n1", "hook", claim, is_uncertain=False)
    assert await claims.claim("n1", "hook", lease_seconds=30) == Done()


async def test_a_store_that_is_away_is_an_error_that_hides_its_address() -> None:
    settings = RedisSettings(url="redis://user:hidden@127.0.0.1:1/0", password=SecretStr("hidden"))
    claims = RedisClaims(settings, pipeline="p", max_connections=1)
    with pytest.raises(ClaimsUnavailable, match=r"check redis.url") as caught:
        await claims.claim("n1", "hook", lease_seconds=1)
    assert "hidden" not in str(caught.value)
    await claims.close()


async def test_without_a_store_everything_is_granted() -> None:
    claims = NoClaims()
    await claims.mark_done("n1", "hook")
    assert isinstance(await claims.claim("n1", "hook", lease_seconds=1), Granted)
