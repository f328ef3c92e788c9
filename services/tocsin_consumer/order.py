"""Who waits for whom, where order is strict: nobody overtakes an earlier notification that waits in a retry topic.

Per channel and key Redis holds a queue of the deliveries that wait, in their order, each with the moment it is due. The
first may go; whoever comes later stands at the end, which is told how long the one before it has to wait yet. The queue
is not in memory, because that dies with a rebalance, and because the retry topic's partition may belong to another
consumer than the topic's. Everything is one script and names its delivery by the original record's partition and
offset, so that a record which Kafka hands out again finds its place instead of a second one.

A delivery that never comes back (its retry topic was deleted) would hold up the others for ever. So each has an end of
its own, when its notification has expired for certain: what stands first beyond it is passed over.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tocsin_core.errors import TocsinError
from tocsin_core.settings import RedisSettings
from tocsin_core.store import build_options

# A queue is a sorted set (delivery -> place) and a hash (delivery -> "<due, ms> <end, ms>").
ASK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local head = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
while head do
  local ends = tonumber(string.match(redis.call('HGET', KEYS[2], head) or '', ' (%d+)$'))
  if ends and ends > now then break end
  redis.call('ZREM', KEYS[1], head)
  redis.call('HDEL', KEYS[2], head)
  head = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
end
if not head then return {'free', 0} end
if head == ARGV[1] then return {'first', 0} end
local rank = redis.call('ZRANK', KEYS[1], ARGV[1])
local place = rank and rank - 1 or -1
local before = redis.call('ZRANGE', KEYS[1], place, place)[1]
local due = tonumber(string.match(redis.call('HGET', KEYS[2], before) or '', '^(%d+) ')) or now
return {'behind', math.max(0, due - now)}
"""
QUEUE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', KEYS[1], (tonumber(last) or 0) + 1, ARGV[1])
end
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f %.0f', now + ARGV[2], now + ARGV[3]))
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < tonumber(ARGV[3]) then redis.call('PEXPIRE', key, ARGV[3]) end
end
return 1
"""
LEAVE = """
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
"""


class OrderUnavailable(TocsinError):
    """The store does not answer, so nobody can tell who waits for whom. Nothing is sent until it does."""

    retriable: ClassVar[bool] = True


class Place(NamedTuple):
    """Whose turn is asked for: a channel, a key, and the original record's partition and offset."""

    channel: str
    key: bytes
    partition: int
    offset: int


class Free(NamedTuple):
    """It may go. `is_queued` says that later ones wait for its end."""

    is_queued: bool = False


class Behind(NamedTuple):
    """It must wait for an earlier one, which is due in so many seconds."""

    due_in_seconds: float


class Order(Protocol):
    """The memory of who waits for whom."""

    is_kept: bool
    """Whether there is anything to ask and to leave."""

    async def ask(self, place: Place) -> Free | Behind:
        """Return whether it is this one's turn. Raise OrderUnavailable if the store does not answer."""
        ...

    async def queue(self, place: Place, *, due_in_seconds: float, ends_in_seconds: float) -> None:
        """Stand in the queue, at its end unless it stands there already. Raise OrderUnavailable."""
        ...

    async def leave(self, place: Place) -> None:
        """Leave the queue, so that the next may go. Raise OrderUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Relaxed:
    """Everybody may go at any time."""

    is_kept = False

    async def ask(self, place: Place) -> Free | Behind:
        """Let it go."""
        del place
        return Free()

    async def queue(self, place: Place, *, due_in_seconds: float, ends_in_seconds: float) -> None:
        """Forget."""

    async def leave(self, place: Place) -> None:
        """Forget."""

    async def close(self) -> None:
        """Nothing to let go of."""


class Strict:
    """The queues in any server that speaks the Redis protocol."""

    is_kept = True

    def __init__(self, settings: RedisSettings, *, pipeline: str, max_connections: int) -> None:
        """`pipeline` (`namespace/name`) separates the pipelines that share a server."""
        self._redis = Redis.from_url(
            **build_options(settings),
            max_connections=max_connections,
        )
        self._pipeline = pipeline
        self._ask = self._redis.register_script(ASK)
        self._queue = self._redis.register_script(QUEUE)
        self._leave = self._redis.register_script(LEAVE)

    async def ask(self, place: Place) -> Free | Behind:
        """Return whether it is this one's turn. Raise OrderUnavailable if the store does not answer."""
        try:
            verdict, due_in_ms = await self._ask(keys=self._keys(place), args=[_name(place)])
        except (RedisError, OSError) as error:
            raise OrderUnavailable(_explain(error)) from error
        if bytes(verdict) == b"behind":
            return Behind(int(due_in_ms) / 1000)
        return Free(is_queued=bytes(verdict) == b"first")

    async def queue(self, place: Place, *, due_in_seconds: float, ends_in_seconds: float) -> None:
        """Stand in the queue, at its end unless it stands there already. Raise OrderUnavailable."""
        args: list[str | int] = [_name(place), int(due_in_seconds * 1000), int(ends_in_seconds * 1000)]
        try:
            await self._queue(keys=self._keys(place), args=[*args])
        except (RedisError, OSError) as error:
            raise OrderUnavailable(_explain(error)) from error

    async def leave(self, place: Place) -> None:
        """Leave the queue, so that the next may go. Raise OrderUnavailable."""
        try:
            await self._leave(keys=self._keys(place), args=[_name(place)])
        except (RedisError, OSError) as error:
            raise OrderUnavailable(_explain(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    def _keys(self, place: Place) -> list[str]:
        # A key may be long and say who somebody is: its digest is neither. The braces keep both keys in one slot of a
        # Redis cluster, and spread the queues over it.
        name = f"tocsin:{{{self._pipeline}:{place.channel}:{blake2b(place.key, digest_size=16).hexdigest()}}}"
        return [f"{name}:order", f"{name}:due"]


def _name(place: Place) -> str:
    return f"{place.partition}:{place.offset}"


def _explain(error: Exception) -> str:
    return f"the store of the order does not answer ({type(error).__name__}): check redis.url and that the server runs"
