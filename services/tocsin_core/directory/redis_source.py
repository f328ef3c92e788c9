"""Profiles in a Redis: one string of JSON per user, many read with one MGET.

A key that holds no string is read as no key: that is what MGET answers. A string that is no profile says something
about one user, not about the server: no proxy stands between us and what was written.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from tocsin_core.directory.source import Answer
from tocsin_core.settings import RedisUsersSettings
from tocsin_core.store import STORE_ERRORS, build_options, explain
from tocsin_core.users import DirectoryError, DirectoryUnavailable, ProfileInvalid, parse_profile

CAUSES: dict[type[Exception], str] = {
    AuthenticationError: "refuses our credentials: correct the Secret in users.redis.credentialsSecretRef",
    NoPermissionError: "forbids MGET: allow our user MGET on the keys of users.redis.keyPattern",
}


class RedisProfiles:
    """Asks a server that speaks the Redis protocol."""

    name = "users.redis"
    max_ids = 500
    max_questions = 8

    def __init__(self, settings: RedisUsersSettings) -> None:
        self.timeout_seconds = settings.timeout_seconds
        self._key_pattern = settings.key_pattern
        # A read may be repeated, and is, once: after a restart of the server each pooled connection fails one.
        self._redis = Redis.from_url(
            **build_options(settings), max_connections=self.max_questions, retry=Retry(NoBackoff(), 1)
        )

    async def ask(self, user_ids: Sequence[str]) -> Sequence[Answer]:
        """Return an answer per user, in order. Raise DirectoryUnavailable if the server gives none."""
        keys = [self._key_pattern.replace("{id}", user_id) for user_id in user_ids]
        try:
            values = await self._redis.mget(keys)
        except STORE_ERRORS as error:
            raise DirectoryUnavailable(f"{self.name}: {_explain(error)}") from error
        return [read_value(user_id, value) for user_id, value in zip(user_ids, values, strict=True)]

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()


def read_value(user_id: str, value: bytes | str | None) -> Answer:
    """Return the profile in a value, None where there is no value, and what is wrong where it holds none."""
    if value is None:
        return None
    try:
        return parse_profile(user_id, value)
    except ProfileInvalid as invalid:
        return invalid
    except DirectoryError as error:
        return ProfileInvalid(str(error))


def _explain(error: Exception) -> str:
    for kind, cause in CAUSES.items():
        if isinstance(error, kind):
            return f"the server {cause}"
    if isinstance(error, ResponseError):
        return f"the server refuses: {error}"
    return explain(error, setting="users.redis.url")
