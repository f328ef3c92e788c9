"""How claims behave: one suite for the model and for a real Valkey, and what only a server can do."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from claims_model import ModelClaims
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_consumer.claims import (
    NO_PLACE,
    Buried,
    Claim,
    ClaimKey,
    Claims,
    ClaimsUnavailable,
    Done,
    Granted,
    Held,
    NoClaims,
)
from tocsin_consumer.redis_claims import RedisClaims
from tocsin_core.errors import KafkaUnavailable
from tocsin_core.settings import RedisSettings

KEY = ClaimKey("n1", "hook")


class ModelStore:
    def __init__(self) -> None:
        self.claims = ModelClaims(time.time)
        self.flush = self.claims.flush

    async def count_uncertain(self) -> int:
        return self.claims.uncertain


class ValkeyStore:
    def __init__(self, url: str) -> None:
        self.pipeline = f"tests/{secrets.token_hex(4)}"
        self.url = url
        self.redis = Redis.from_url(url)
        self.claims = self.build_claims()

    def build_claims(self, *, is_new: bool = True) -> RedisClaims:
        async def answer() -> bool:
            return is_new

        return RedisClaims(RedisSettings(url=self.url), pipeline=self.pipeline, is_new=answer)

    async def flush(self) -> None:
        keys = [key async for key in self.redis.scan_iter(f"tocsin:{{{self.pipeline}}}:*")]
        await self.redis.delete(*keys)

    async def count_uncertain(self) -> int:
        value = await cast("Awaitable[bytes | None]", self.redis.get(f"tocsin:{{{self.pipeline}}}:uncertain"))
        return int(value or 0)

    async def close(self) -> None:
        await self.claims.close()
        await self.redis.aclose()


Store = ModelStore | ValkeyStore


@pytest.fixture
async def valkey_store(valkey: EmbeddedValkey) -> AsyncIterator[ValkeyStore]:
    store = ValkeyStore(valkey.url)
    await store.claims.start()
    yield store
    await store.close()


@pytest.fixture(params=["model", "valkey"])
async def store(request: pytest.FixtureRequest, valkey: EmbeddedValkey) -> AsyncIterator[Store]:
    if request.param == "model":
        yield ModelStore()
        return
    server_store = ValkeyStore(valkey.url)
    await server_store.claims.start()
    yield server_store
    await server_store.close()


async def claim(
    claims: Claims,
    token: str = "mine",
    *,
    key: ClaimKey = KEY,
    lease_seconds: float = 30.0,
    accepted_at: datetime | None = None,
    place: str = NO_PLACE,
) -> Claim:
    moment = accepted_at or datetime.now(UTC) + timedelta(seconds=5)
    return await claims.claim(key, token, lease_seconds=lease_seconds, accepted_at=moment, place=place)


async def granted(claims: Claims, token: str = "mine", *, lease_seconds: float = 30.0) -> Granted:
    answer = await claim(claims, token, lease_seconds=lease_seconds)
    assert isinstance(answer, Granted)
    return answer


async def granted_once_lapsed(claims: Claims, token: str) -> Granted:
    deadline = time.monotonic() + 10
    while isinstance(answer := await claim(claims, token), Held):
        assert time.monotonic() < deadline
    assert isinstance(answer, Granted)
    return answer


async def test_the_first_claim_is_granted_and_certain(store: Store) -> None:
    assert not (await granted(store.claims)).is_uncertain
    assert await store.count_uncertain() == 0


async def test_a_live_claim_is_held_against_others(store: Store) -> None:
    await granted(store.claims)
    answer = await claim(store.claims, "other")
    assert isinstance(answer, Held)
    assert 0 < answer.again_in_seconds <= 0.25


@pytest.mark.parametrize(
    "other",
    [KEY._replace(channel="mail"), KEY._replace(notification_id="n2"), KEY._replace(device="phone")],
)
async def test_channels_notifications_and_devices_are_claimed_apart(store: Store, other: ClaimKey) -> None:
    await granted(store.claims)
    await store.claims.mark_done(KEY)
    assert isinstance(await claim(store.claims, key=other), Granted)


async def test_colons_in_ids_and_devices_never_make_two_keys_one(store: Store) -> None:
    await store.claims.mark_done(ClaimKey("c", "hook", "a:b"))
    assert isinstance(await claim(store.claims, key=ClaimKey("b:c", "hook", "a")), Granted)
    assert isinstance(await claim(store.claims, key=ClaimKey("a:b:c", "hook")), Granted)


async def test_what_is_done_stays_done(store: Store) -> None:
    await granted(store.claims)
    await store.claims.mark_done(KEY)
    assert await claim(store.claims, "other") == Done()
    assert await claim(store.claims, "mine") == Done()


async def test_a_dead_letter_is_not_tried_again_unless_it_is_produced_again(store: Store) -> None:
    await store.claims.release(KEY, (await granted(store.claims)).token, is_uncertain=False)
    await store.claims.mark_buried(KEY, place="3:14")
    assert await claim(store.claims, place="3:14") == Buried()
    assert await claim(store.claims, place="3:14", key=ClaimKey("n1", "mail")) != Buried()
    again = await claim(store.claims, place="3:99")
    assert isinstance(again, Granted)
    assert not again.is_uncertain
    assert await store.count_uncertain() == 0


async def test_a_dead_letter_keeps_the_doubt_of_its_last_send(store: Store) -> None:
    await store.claims.release(KEY, (await granted(store.claims)).token, is_uncertain=True)
    await store.claims.mark_buried(KEY, place="3:14")
    again = await claim(store.claims, place="3:99")
    assert isinstance(again, Granted)
    assert again.is_uncertain
    assert await store.count_uncertain() == 1


async def test_what_was_sent_is_not_buried(store: Store) -> None:
    await granted(store.claims)
    await store.claims.mark_done(KEY)
    await store.claims.mark_buried(KEY, place="3:14")
    assert await claim(store.claims, place="3:99") == Done()


async def test_a_lapsed_claim_is_granted_to_another_as_uncertain_and_counted(store: Store) -> None:
    await granted(store.claims, lease_seconds=0.05)
    assert (await granted_once_lapsed(store.claims, "other")).is_uncertain
    assert await store.count_uncertain() == 1


async def test_whoever_asks_again_with_the_same_token_has_not_sent_and_is_in_no_doubt(store: Store) -> None:
    await granted(store.claims, lease_seconds=0.0)
    assert not (await granted(store.claims, lease_seconds=30.0)).is_uncertain
    assert not (await granted(store.claims)).is_uncertain
    assert await store.count_uncertain() == 0


async def test_a_doubt_is_counted_once_however_often_its_holder_asks_again(store: Store) -> None:
    await granted(store.claims, lease_seconds=0.0)
    for _ in range(3):
        assert (await granted_once_lapsed(store.claims, "other")).is_uncertain
    assert await store.count_uncertain() == 1


async def test_who_was_overtaken_while_it_slept_does_not_get_its_claim_back(store: Store) -> None:
    await granted(store.claims, lease_seconds=0.05)
    await granted_once_lapsed(store.claims, "other")
    assert isinstance(await claim(store.claims, "mine"), Held)


async def test_a_claim_released_after_a_certain_failure_leaves_no_doubt(store: Store) -> None:
    await granted(store.claims)
    await store.claims.release(KEY, "mine", is_uncertain=False)
    assert not (await granted(store.claims, "other")).is_uncertain


async def test_a_claim_released_after_silence_leaves_doubt(store: Store) -> None:
    await granted(store.claims)
    await store.claims.release(KEY, "mine", is_uncertain=True)
    assert (await granted(store.claims, "other")).is_uncertain


async def test_only_the_holder_can_release_a_claim(store: Store) -> None:
    await granted(store.claims)
    await store.claims.release(KEY, "somebody else", is_uncertain=False)
    assert isinstance(await claim(store.claims, "other"), Held)


async def test_a_late_release_does_not_undo_what_is_done(store: Store) -> None:
    await granted(store.claims)
    await store.claims.mark_done(KEY)
    await store.claims.release(KEY, "mine", is_uncertain=False)
    assert await claim(store.claims, "other") == Done()


async def test_after_the_store_lost_its_memory_what_was_accepted_before_is_uncertain_and_counted(
    store: Store,
) -> None:
    before = datetime.now(UTC)
    await granted(store.claims)
    await store.claims.mark_done(KEY)
    await store.flush()
    counted = await store.count_uncertain()
    answer = await claim(store.claims, accepted_at=before)
    assert isinstance(answer, Granted)
    assert answer.is_uncertain
    assert await store.count_uncertain() == counted + 1


async def test_after_the_store_lost_its_memory_what_is_accepted_later_is_certain(store: Store) -> None:
    await store.flush()
    await store.claims.mark_done(ClaimKey("n0", "hook"))
    later = datetime.now(UTC) + timedelta(seconds=5)
    answer = await claim(store.claims, accepted_at=later)
    assert isinstance(answer, Granted)
    assert not answer.is_uncertain


async def test_a_claim_holds_no_longer_on_our_clock_than_from_the_moment_it_was_asked_for(
    valkey_store: ValkeyStore,
) -> None:
    asked_at = time.monotonic()
    answer = await granted(valkey_store.claims, lease_seconds=30.0)
    assert asked_at + 30.0 <= answer.holds_until <= time.monotonic() + 30.0


async def test_what_is_asked_at_once_goes_to_the_server_as_one_call(valkey_store: ValkeyStore) -> None:
    keys = [ClaimKey(f"n{number}", "hook", device) for number in range(50) for device in ("", "phone")]
    before = await count_calls(valkey_store.redis)
    answers = await asyncio.gather(*(claim(valkey_store.claims, key=key) for key in keys))
    assert all(isinstance(answer, Granted) for answer in answers)
    await asyncio.gather(*(valkey_store.claims.mark_done(key) for key in keys))
    assert await count_calls(valkey_store.redis) - before == 2
    assert await asyncio.gather(*(claim(valkey_store.claims, key=key) for key in keys)) == [Done()] * 100


async def count_calls(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("eval", "evalsha"))


async def test_two_who_ask_at_once_for_the_same_are_told_apart_within_one_call(valkey_store: ValkeyStore) -> None:
    first, second = await asyncio.gather(claim(valkey_store.claims, "one"), claim(valkey_store.claims, "two"))
    assert isinstance(first, Granted)
    assert isinstance(second, Held)


async def test_a_server_that_forgot_the_script_is_told_it_again(valkey_store: ValkeyStore) -> None:
    await granted(valkey_store.claims)
    await cast("Awaitable[bytes]", valkey_store.redis.script_flush())
    assert isinstance(await claim(valkey_store.claims, "other"), Held)


async def test_on_a_pipeline_with_a_history_an_empty_store_has_lost_its_memory(valkey_store: ValkeyStore) -> None:
    await valkey_store.flush()
    claims = valkey_store.build_claims(is_new=False)
    await claims.start()
    answer = await claim(claims, accepted_at=datetime.now(UTC) - timedelta(seconds=1))
    assert isinstance(answer, Granted)
    assert answer.is_uncertain
    await claims.close()


async def test_an_empty_store_is_not_used_while_nobody_says_whether_the_pipeline_is_new(
    valkey_store: ValkeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin_consumer.redis_claims.LOOK_AGAIN_SECONDS", 0.01)
    is_told = asyncio.Event()

    async def is_new() -> bool:
        if not is_told.is_set():
            raise KafkaUnavailable("no broker answers")
        return True

    await valkey_store.flush()
    claims = RedisClaims(RedisSettings(url=valkey_store.url), pipeline=valkey_store.pipeline, is_new=is_new)
    await claims.start()
    with pytest.raises(ClaimsUnavailable, match="not known: no broker answers"):
        await claim(claims, accepted_at=datetime.now(UTC) - timedelta(days=1))
    is_told.set()
    async with asyncio.timeout(10):
        while claims.trouble:  # noqa: ASYNC110 - it tells nobody when it ends
            await asyncio.sleep(0.01)
    answer = await claim(claims, accepted_at=datetime.now(UTC) - timedelta(days=1))
    assert isinstance(answer, Granted)
    assert not answer.is_uncertain
    await claims.close()


async def test_on_a_new_pipeline_nothing_can_have_been_sent(valkey_store: ValkeyStore) -> None:
    answer = await claim(valkey_store.claims, accepted_at=datetime.now(UTC) - timedelta(days=1))
    assert isinstance(answer, Granted)
    assert not answer.is_uncertain


async def test_a_done_mark_is_kept_as_long_as_its_notification_is_worth_sending(valkey: EmbeddedValkey) -> None:
    claims = RedisClaims(RedisSettings(url=valkey.url), pipeline="tests/long", keep_seconds=7 * 86_400)
    await claims.start()
    await claims.mark_done(KEY)
    redis = Redis.from_url(valkey.url)
    assert await redis.ttl("tocsin:{tests/long}:hook::n1") > 6 * 86_400
    await redis.aclose()
    await claims.close()


async def test_a_store_that_is_away_is_an_error_that_hides_its_address() -> None:
    settings = RedisSettings(url="redis://user:hidden@127.0.0.1:1/0", password=SecretStr("hidden"))
    claims = RedisClaims(settings, pipeline="p")
    await claims.start()
    assert "check redis.url" in claims.trouble
    with pytest.raises(ClaimsUnavailable, match=r"check redis.url") as caught:
        await claim(claims)
    assert "hidden" not in str(caught.value) + claims.trouble
    await claims.close()


async def test_without_a_store_everything_is_granted() -> None:
    claims = NoClaims()
    await claims.mark_done(KEY)
    assert isinstance(await claim(claims), Granted)


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A server that a test may stop, fill and configure."""
    with EmbeddedValkey() as server:
        yield server


async def test_a_store_that_evicts_is_refused_until_its_policy_is_right(
    own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin_consumer.redis_claims.LOOK_AGAIN_SECONDS", 0.01)
    store = ValkeyStore(own_valkey.url)
    await store.redis.config_set("maxmemory", "100mb")
    await store.redis.config_set("maxmemory-policy", "allkeys-lru")
    await store.claims.start()
    assert "set maxmemory-policy noeviction" in store.claims.trouble
    with pytest.raises(ClaimsUnavailable, match="maxmemory-policy allkeys-lru"):
        await claim(store.claims)
    await store.redis.config_set("maxmemory-policy", "noeviction")
    await granted_when_back(store.claims)
    assert store.claims.trouble == ""
    await store.close()


async def test_an_eviction_policy_without_a_memory_limit_evicts_nothing_and_is_accepted(
    own_valkey: EmbeddedValkey,
) -> None:
    store = ValkeyStore(own_valkey.url)
    await store.redis.config_set("maxmemory-policy", "allkeys-lru")
    await store.claims.start()
    assert store.claims.trouble == ""
    await store.close()


async def test_a_full_store_says_that_it_is_full(own_valkey: EmbeddedValkey) -> None:
    store = ValkeyStore(own_valkey.url)
    await store.claims.start()
    await store.redis.config_set("maxmemory", "1")
    with pytest.raises(ClaimsUnavailable, match="is full: raise its maxmemory"):
        await claim(store.claims)
    await store.close()


async def allow(redis: Redis, *, keys: list[str], commands: list[str]) -> None:
    """Make the user `tocsin`, who may do everything but what `commands` take away."""
    await redis.acl_setuser(
        "tocsin", enabled=True, passwords=["+secret"], keys=keys, categories=["+@all"], commands=commands
    )


@pytest.mark.parametrize("forbidden", ["-info", "-config", "-info -config"])
async def test_a_server_that_forbids_questions_about_itself_is_asked_what_it_allows(
    own_valkey: EmbeddedValkey, forbidden: str
) -> None:
    store = ValkeyStore(own_valkey.url)
    await allow(store.redis, keys=["tocsin:*"], commands=forbidden.split())
    await store.redis.config_set("maxmemory", "100mb")
    await store.redis.config_set("maxmemory-policy", "volatile-ttl")
    settings = RedisSettings(url=own_valkey.url, username="tocsin", password=SecretStr("secret"))
    claims = RedisClaims(settings, pipeline="p")
    await claims.start()
    assert ("volatile-ttl" in claims.trouble) == (forbidden != "-info -config")
    await claims.close()
    await store.close()


@pytest.mark.parametrize(
    ("keys", "commands", "told"), [("tocsin:*", ["-set"], "'set' command"), ("other:*", [], "allow our user")]
)
async def test_a_user_without_rights_is_told_which_it_needs(
    own_valkey: EmbeddedValkey, keys: str, commands: list[str], told: str
) -> None:
    store = ValkeyStore(own_valkey.url)
    await allow(store.redis, keys=[keys], commands=commands)
    settings = RedisSettings(url=own_valkey.url, username="tocsin", password=SecretStr("secret"))
    claims = RedisClaims(settings, pipeline="p")
    await claims.start()
    assert told in claims.trouble
    await claims.close()
    await store.close()


async def test_a_stalled_store_fails_all_who_wait_after_one_timeout_and_the_rest_at_once(
    own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin_core.store.TIMEOUT_SECONDS", 0.2)
    store = ValkeyStore(own_valkey.url)
    await store.claims.start()
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        keys = [ClaimKey(f"n{number}", "hook") for number in range(1000)]
        answers = await asyncio.gather(*(claim(store.claims, key=key) for key in keys), return_exceptions=True)
        assert all(isinstance(answer, ClaimsUnavailable) for answer in answers)
        with pytest.raises(ClaimsUnavailable, match=r"check redis.url"):
            await claim(store.claims)
        assert store.claims.trouble
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
    await granted_when_back(store.claims)
    assert store.claims.trouble == ""
    await store.close()


async def granted_when_back(claims: Claims, key: ClaimKey = KEY) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                assert isinstance(await claim(claims, key=key), Granted)
            except ClaimsUnavailable:
                await asyncio.sleep(0.01)
            else:
                return


async def test_what_is_done_outlives_a_restart_of_the_store_and_clients_find_it_again(tmp_path: Path) -> None:
    with EmbeddedValkey(data_dir=tmp_path) as server:
        store = ValkeyStore(server.url)
        await store.claims.start()
        await store.claims.mark_done(KEY)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ClaimsUnavailable):
            await claim(store.claims)
        server.stop()
        server.start()
        await granted_when_back(store.claims, ClaimKey("n2", "hook"))
        assert await claim(store.claims) == Done()
        await store.close()
