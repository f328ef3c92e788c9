"""User directories behind a real Valkey and a real HTTP server: found, unknown, slow, broken, killed and back."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from directories import Clock, UserService, serving_users
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_core.breaker import FAILURES_IN_A_ROW, State
from tocsin_core.directory.http_source import MAX_PROFILE_BYTES, HTTPProfiles
from tocsin_core.directory.redis_source import RedisProfiles
from tocsin_core.directory.remote import RemoteUserDirectory
from tocsin_core.settings import HTTPUsersSettings, RedisUsersSettings, UsersCacheSettings
from tocsin_core.users import DirectoryUnavailable, Profile, ProfileInvalid

ADA = Profile(id="2", name="Ada", email="ada@example.org")
CACHE = UsersCacheSettings()
PASSWORD = "of-valkey"


@pytest.fixture
async def service() -> AsyncIterator[UserService]:
    async with serving_users() as service:
        yield service


def build_http(
    service: UserService, *, token: str = "", clock: Clock | None = None, **changes: float
) -> RemoteUserDirectory:
    settings = HTTPUsersSettings.model_validate({"url": service.url, "token": token} | changes)
    return RemoteUserDirectory(HTTPProfiles(settings), CACHE, clock=clock or Clock())


@pytest.fixture
async def http(service: UserService) -> AsyncIterator[RemoteUserDirectory]:
    directory = build_http(service, token="sesame")
    yield directory
    await directory.close()


async def explain(directory: RemoteUserDirectory, user_id: str = "2") -> str:
    with pytest.raises(DirectoryUnavailable) as caught:
        await directory.find(user_id)
    return str(caught.value)


async def test_http_200_is_a_profile_and_404_no_such_user(http: RemoteUserDirectory, service: UserService) -> None:
    assert await http.find("2") == ADA
    assert await http.find("77") is None
    assert service.paths == ["/users/2", "/users/77"]
    assert service.requests[0][1]["authorization"] == "bearer sesame"


async def test_an_id_cannot_lead_elsewhere(http: RemoteUserDirectory, service: UserService) -> None:
    for user_id in (".", "..", "../admin", "a/b?c#d"):
        assert await http.find(user_id) is None
    assert sorted(service.paths) == ["/users/..%2Fadmin", "/users/a%2Fb%3Fc%23d"]


async def test_without_a_token_none_is_sent(service: UserService) -> None:
    directory = build_http(service)
    assert await directory.find("2") == ADA
    assert "authorization" not in service.requests[0][1]
    await directory.close()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"", "HTTP 500"),
        (503, b"{}", "HTTP 503"),
        (401, b"", "HTTP 401"),
        (200, b"<html>Sign in</html>", "HTTP 200 without a profile"),
        (200, b" " * (MAX_PROFILE_BYTES + 1), f"more than {MAX_PROFILE_BYTES} bytes"),
    ],
)
async def test_every_other_answer_over_http_is_no_answer(
    http: RemoteUserDirectory, service: UserService, status: int, body: bytes, words: str
) -> None:
    service.say(status, body)
    assert words in await explain(http)


async def test_a_redirect_is_not_followed_with_our_token(http: RemoteUserDirectory, service: UserService) -> None:
    service.say(302, b"", f"location: {service.url.replace('{id}', '1')}")
    assert "HTTP 302" in await explain(http)
    assert service.paths == ["/users/2"]


async def test_what_is_not_http_is_no_answer(http: RemoteUserDirectory, service: UserService) -> None:
    service.answer = b"\x00garbage\r\n\r\n"
    told = await explain(http)
    assert told.startswith("users.http: ")
    assert "127.0.0.1" not in told


async def test_a_profile_that_does_not_fit_is_one_user_s_trouble(
    http: RemoteUserDirectory, service: UserService
) -> None:
    service.profiles["2"] = {"email": ["ada@example.org"]}
    with pytest.raises(ProfileInvalid, match=r"user '2'.*email"):
        await http.find("2")
    assert await http.find("1") == Profile(id="1", name="Bob")


async def test_a_slow_server_is_given_up_after_its_time_and_asked_again_when_it_is_quick(service: UserService) -> None:
    directory = build_http(service, timeout_seconds=0.1)
    service.is_open.clear()
    told = await explain(directory)
    assert "no answer within 0.1 s" in told or "Timeout" in told
    service.is_open.set()
    assert await directory.find("2") == ADA
    await directory.close()


async def test_a_crowd_of_questions_keeps_to_the_connections_it_may_open(service: UserService) -> None:
    directory = build_http(service, max_connections=4)
    service.profiles = {str(number): {"name": f"User {number}"} for number in range(100)}
    service.is_open.clear()
    asking = [asyncio.create_task(directory.find(str(number))) for number in range(100)]
    while len(service.requests) < 4:  # noqa: ASYNC110 - over a real socket nothing tells us
        await asyncio.sleep(0)
    service.is_open.set()
    assert all(await asyncio.gather(*asking))
    assert service.most_open == 4
    await directory.close()


async def test_fifty_who_want_to_know_the_same_ask_a_server_once(
    http: RemoteUserDirectory, service: UserService
) -> None:
    assert await asyncio.gather(*(http.find("2") for _ in range(50))) == [ADA] * 50
    assert service.paths == ["/users/2"]


async def test_a_killed_server_is_left_alone_users_who_are_remembered_are_found_and_it_is_noticed_when_it_is_back(
    service: UserService,
) -> None:
    clock = Clock()
    directory = build_http(service, clock=clock)
    assert await directory.find("2") == ADA
    await service.kill()
    clock.now += CACHE.ttl_seconds
    for number in range(FAILURES_IN_A_ROW):
        await explain(directory, f"new{number}")
    assert state_of(directory) is State.OPEN
    assert await directory.find("2") == ADA
    await service.start()
    asked = len(service.requests)
    await explain(directory, "1")
    assert len(service.requests) == asked
    clock.now += 10.0
    await directory.check()
    assert state_of(directory) is State.CLOSED
    assert await directory.find("1") == Profile(id="1", name="Bob")
    await directory.close()


def state_of(directory: RemoteUserDirectory) -> State:
    return directory._guard.state


class Keys:
    """Profiles in a real Valkey, under keys of this test's own."""

    def __init__(self, url: str, *, password: str = "") -> None:
        self.pattern = f"test-{secrets.token_hex(4)}:{{id}}"
        self.redis = Redis.from_url(url, password=password or None, retry=Retry(NoBackoff(), 1))
        settings = RedisUsersSettings(
            url=url, password=SecretStr(password), key_pattern=self.pattern, timeout_seconds=2.0
        )
        self.clock = Clock()
        self.directory = RemoteUserDirectory(RedisProfiles(settings), CACHE, clock=self.clock)

    async def write(self, user_id: str, value: str) -> None:
        await self.redis.set(self.pattern.replace("{id}", user_id), value)

    async def close(self) -> None:
        await self.directory.close()
        await self.redis.aclose()


@pytest.fixture
async def keys(valkey: EmbeddedValkey) -> AsyncIterator[Keys]:
    keys = Keys(valkey.url)
    yield keys
    await keys.close()


async def count_calls(redis: Redis, command: str) -> int:
    calls = (await redis.info("commandstats")).get(f"cmdstat_{command}", {"calls": 0})["calls"]
    return int(calls)


async def test_a_string_in_redis_is_a_profile_and_no_key_no_such_user(keys: Keys) -> None:
    await keys.write("2", json.dumps({"name": "Ada", "email": "ada@example.org"}))
    assert await keys.directory.find("2") == ADA
    assert await keys.directory.find("77") is None


async def test_a_batch_of_users_is_read_from_redis_in_few_questions(keys: Keys) -> None:
    for number in range(600):
        await keys.write(str(number), json.dumps({"name": f"User {number}"}))
    before = await count_calls(keys.redis, "mget")
    found = await asyncio.gather(*(keys.directory.find(str(number)) for number in range(600)))
    assert found == [Profile(id=str(number), name=f"User {number}") for number in range(600)]
    assert await count_calls(keys.redis, "mget") - before == 2


async def test_one_broken_value_in_redis_spoils_no_other_answer(keys: Keys) -> None:
    await keys.write("1", "<html>")
    await keys.write("2", json.dumps({"name": "Ada", "email": "ada@example.org"}))
    broken, ada = await asyncio.gather(keys.directory.find("1"), keys.directory.find("2"), return_exceptions=True)
    assert isinstance(broken, ProfileInvalid)
    assert ada == ADA


async def test_a_key_that_holds_no_string_is_no_user(keys: Keys) -> None:
    await keys.redis.rpush(keys.pattern.replace("{id}", "2"), "Ada")
    assert await keys.directory.find("2") is None


async def test_a_store_with_a_password_is_read_with_it_and_says_when_it_is_wrong() -> None:
    with EmbeddedValkey(password=PASSWORD) as server:
        good, bad = Keys(server.url, password=PASSWORD), Keys(server.url, password="wrong")
        await good.write("2", "{}")
        assert await good.directory.find("2") == Profile(id="2")
        told = await explain(bad.directory)
        assert told == (
            "users.redis: the server refuses our credentials: correct the Secret in users.redis.credentialsSecretRef"
        )
        await good.close()
        await bad.close()


async def test_a_killed_store_is_no_answer_and_is_read_again_when_it_is_back() -> None:
    server = EmbeddedValkey()
    server.start()
    keys = Keys(server.url)
    try:
        await keys.write("2", json.dumps({"name": "Ada", "email": "ada@example.org"}))
        assert await keys.directory.find("2") == ADA
        await asyncio.to_thread(server.stop)
        keys.clock.now += CACHE.ttl_seconds
        assert await keys.directory.find("2") == ADA  # remembered
        told = await explain(keys.directory, "1")
        assert "check users.redis.url and that the server runs" in told
        assert server.url not in told
        await asyncio.to_thread(server.start)
        await keys.write("1", "{}")
        keys.clock.now += 10.0
        assert await keys.directory.find("1") == Profile(id="1")
    finally:
        await keys.close()
        await asyncio.to_thread(server.stop)


async def test_a_restart_of_the_store_that_nobody_noticed_costs_no_answer() -> None:
    with EmbeddedValkey() as server:
        keys = Keys(server.url)
        await asyncio.gather(*(keys.directory._source.ask([str(number)]) for number in range(8)))
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        for number in range(8):
            assert await keys.directory.find(str(number)) is None
        await keys.close()


async def test_a_restart_of_the_server_that_nobody_noticed_costs_no_answer(
    http: RemoteUserDirectory, service: UserService
) -> None:
    assert await http.find("77") is None
    await service.kill()
    await service.start()
    assert await http.find("2") == ADA
