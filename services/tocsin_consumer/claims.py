"""At most one sender per (notification, channel), and a memory of what was sent: the thin effect-once.

Redis holds one key per notification and channel: absent, a claim with the moment it lapses, or done. One script looks
and claims in one step, on the server's clock. A lapsed claim means that somebody began to send and never said how it
ended: the send is repeated (losing a notification would be worse) and counted, in Redis too, because a killed process
forgets its counters. The claim outlives its lapse as a key, which is how it can be told from no claim at all.
The server must run with `noeviction` and persistence; an evicted key is a duplicate nobody counts.

Without Redis every claim is granted: then everything finished since the last commit may be repeated after a crash.
"""

from __future__ import annotations

import secrets
from typing import ClassVar, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tocsin_core.errors import TocsinError
from tocsin_core.settings import RedisSettings

KEEP_SECONDS = 86_400
REDIS_TIMEOUT_SECONDS = 3.0
POLL_SECONDS = 0.25

# A claim is `P <lapses at, ms> <token>`, done is `D`. Returns {verdict, ms until the live claim lapses}.
CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local value = redis.call('GET', KEYS[1])
if value == 'D' then return {'done', 0} end
local verdict = 'granted'
if value then
  local lapses = tonumber(string.match(value, '^P (%d+) '))
  if lapses and lapses > now then return {'held', lapses - now} end
  redis.call('INCR', KEYS[2])
  verdict = 'uncertain'
end
redis.call('SET', KEYS[1], 'P ' .. string.format('%d', now + ARGV[1]) .. ' ' .. ARGV[2], 'EX', ARGV[3])
return {verdict, 0}
"""
# Lets go of a claim that is still ours: forgotten if nothing was sent, lapsed at once if something may have been.
RELEASE = """
local value = redis.call('GET', KEYS[1])
if not value or string.match(value, '^P %d+ (.*)$') ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then return redis.call('SET', KEYS[1], 'P 0 ' .. ARGV[1], 'KEEPTTL') and 1 end
return redis.call('DEL', KEYS[1])
"""


class ClaimsUnavailable(TocsinError):
    """The store does not answer, so nobody can tell what was sent. Nothing is sent until it does."""

    retriable: ClassVar[bool] = True


class Granted(NamedTuple):
    """Ours to send. `is_uncertain` says that an earlier send may have arrived."""

    token: str
    is_uncertain: bool = False


class Held(NamedTuple):
    """Somebody else is sending; ask again after so many seconds."""

    again_in_seconds: float


class Done(NamedTuple):
    """It was sent before."""


Claim = Granted | Held | Done


class Claims(Protocol):
    """The memory of what was sent."""

    async def claim(self, notification_id: str, channel: str, *, lease_seconds: float) -> Claim:
        """Claim the right to send. Raise ClaimsUnavailable if the store does not answer."""
        ...

    async def mark_done(self, notification_id: str, channel: str) -> None:
        """Remember that it was sent. Raise ClaimsUnavailable if the store does not answer."""
        ...

    async def release(self, notification_id: str, channel: str, claim: Granted, *, is_uncertain: bool) -> None:
        """Let go of a claim after a failed send. Raise ClaimsUnavailable if the store does not answer."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class NoClaims:
    """No store: everything may be sent, nothing is remembered."""

    async def claim(self, notification_id: str, channel: str, *, lease_seconds: float) -> Claim:
        """Grant."""
        del notification_id, channel, lease_seconds
        return Granted("")

    async def mark_done(self, notification_id: str, channel: str) -> None:
        """Forget."""

    async def release(self, notification_id: str, channel: str, claim: Granted, *, is_uncertain: bool) -> None:
        """Forget."""

    async def close(self) -> None:
        """Nothing to let go of."""


class RedisClaims:
    """Claims in any server that speaks the Redis protocol."""

    def __init__(self, settings: RedisSettings, *, pipeline: str, max_connections: int) -> None:
        """`pipeline` (`namespace/name`) separates the pipelines that share a server."""
        self._redis = Redis.from_url(
            settings.url,
            username=settings.username or None,
            password=settings.password.get_secret_value() or None,
            socket_timeout=REDIS_TIMEOUT_SECONDS,
            socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            max_connections=max_connections,
        )
        # The braces keep a pipeline's keys in one slot of a Redis cluster, so that a script may touch two of them.
        self._prefix = f"tocsin:{{{pipeline}}}"
        self._claim = self._redis.register_script(CLAIM)
        self._release = self._redis.register_script(RELEASE)

    async def claim(self, notification_id: str, channel: str, *, lease_seconds: float) -> Claim:
        """Claim the right to send. Raise ClaimsUnavailable if the store does not answer."""
        token = secrets.token_hex(8)
        keys = [self._key(notification_id, channel), f"{self._prefix}:uncertain"]
        try:
            verdict, lapses_in_ms = await self._claim(keys=keys, args=[int(lease_seconds * 1000), token, KEEP_SECONDS])
        except (RedisError, OSError) as error:
            raise ClaimsUnavailable(explain(error)) from error
        match bytes(verdict):
            case b"done":
                return Done()
            case b"held":
                return Held(min(int(lapses_in_ms) / 1000, POLL_SECONDS))
            case other:
                return Granted(token, is_uncertain=other == b"uncertain")

    async def mark_done(self, notification_id: str, channel: str) -> None:
        """Remember that it was sent. Raise ClaimsUnavailable if the store does not answer."""
        try:
            await self._redis.set(self._key(notification_id, channel), "D", ex=KEEP_SECONDS)
        except (RedisError, OSError) as error:
            raise ClaimsUnavailable(explain(error)) from error

    async def release(self, notification_id: str, channel: str, claim: Granted, *, is_uncertain: bool) -> None:
        """Let go of a claim after a failed send. Raise ClaimsUnavailable if the store does not answer."""
        keys = [self._key(notification_id, channel)]
        try:
            await self._release(keys=keys, args=[claim.token, "1" if is_uncertain else "0"])
        except (RedisError, OSError) as error:
            raise ClaimsUnavailable(explain(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    def _key(self, notification_id: str, channel: str) -> str:
        return f"{self._prefix}:{channel}:{notification_id}"


def explain(error: Exception) -> str:
    """Return what is wrong with the store and what to do, without its address, which may carry a password."""
    return f"the claim store does not answer ({type(error).__name__}): check redis.url and that the server runs"
