"""The hub between consumers and the ingestion pods that hold people's WebSockets: what both sides agree on. Pure.

    consumer ── SEND: look users up, publish ──► Redis ── a channel per pod ──► pod ── frame ──► sockets
        ▲                                                                        │
        └────────────── a channel per consumer: taken | absent | … ◄─────────────┘

The registry, in Redis, below `tocsin:{namespace/name}:hub:`

    user:<id>    set of the pods that hold a connection of this user; expires unless refreshed
    pods         sorted set: pod -> the moment its lease lapses, renewed by its heartbeat
    watch        hash: `seen`, the last heartbeat of any pod, and `since`, from when on there was no hole between them

Many users cost nothing but their entries: a pod keeps one lease and one subscription, whatever the number of its
connections, so a crashed pod's entries are void when one lease lapses, and nobody must sweep users.

**What is believed.** `taken` means that a live connection's socket took the frame. That nobody is connected is believed
only where it is certain: no pod holds the user; or every pod that the registry names said so itself; and the
registry has been kept for a whole lease without a hole, because a store that was flushed or away knows nothing of
connections that are still open. A pod whose lease lapsed a moment ago crashed or left, and its clients are on their
way to another pod: until its grace is over, that is a reason to wait, not to give up.

One script looks up and publishes for a whole batch of notifications, so a send costs a share of one round trip and
there is no moment between look-up and publication. PUBLISH says how many listened: a pod that Redis has seen going is
known to be silent at once. Batches and answers are JSON, which the script can join and nobody has to escape.

Refused: one channel all pods listen to (every pod would read every notification; in a Redis cluster, classic pub/sub
sends it to every node besides); a channel per user (a reconnect storm becomes a storm of subscriptions); sticky routing
(who holds a user would depend on every load balancer on the way); consumers opening HTTP to pods (addresses, a second
port and a second way to authenticate); streams instead of pub/sub (a frame for a socket that closed has no reader,
and Kafka already keeps what has not ended).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, StrEnum, auto
from typing import NamedTuple

import msgspec

from tocsin_core.errors import MessageError

HEARTBEAT_SECONDS = 3.0
LEASE_SECONDS = 10.0
"""How long a pod counts as alive after its last heartbeat; two may be late."""
GRACE_SECONDS = 10.0
"""How long after that its clients are expected at another pod."""
REFRESH_SECONDS = 60.0
KEEP_SECONDS = 180
"""How long a key stays when no pod refreshes it: a pipeline that is gone leaves nothing behind."""

# KEYS watch, pods; ARGV pod, lease ms, grace ms, seconds to keep both. Returns whether the registry knew the pod.
HEARTBEAT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = tonumber(redis.call('HGET', KEYS[1], 'seen'))
if not seen or now - seen > tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'since', now) end
redis.call('HSET', KEYS[1], 'seen', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3])
local known = redis.call('ZSCORE', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return known and 1 or 0
"""
# KEYS pods; ARGV pod. The lease lapses now: from here on, its clients are expected elsewhere.
LEAVE = """
local time = redis.call('TIME')
return redis.call('ZADD', KEYS[1], 'XX', time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
"""
# KEYS watch, pods, users...; ARGV lease ms, grace ms, prefix of the pods' channels, requests...
# Returns whether absence can be believed, then for each request how many pods were asked and how many are silent.
SEND = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, grace = tonumber(ARGV[1]), tonumber(ARGV[2])
local watch = redis.call('HMGET', KEYS[1], 'seen', 'since')
local seen, since = tonumber(watch[1]), tonumber(watch[2])
local settled = seen and since and now - seen <= lease and now - since >= lease
local lapses, batches, holders = {}, {}, {}
for i = 3, #KEYS do
  holders[i] = {}
  for _, pod in ipairs(redis.call('SMEMBERS', KEYS[i])) do
    if lapses[pod] == nil then lapses[pod] = tonumber(redis.call('ZSCORE', KEYS[2], pod)) or 0 end
    if lapses[pod] + grace <= now then
      redis.call('SREM', KEYS[i], pod)
    else
      table.insert(holders[i], pod)
      if lapses[pod] > now then
        batches[pod] = batches[pod] or {}
        table.insert(batches[pod], ARGV[i + 1])
      end
    end
  end
end
local listeners = {}
for pod, requests in pairs(batches) do
  listeners[pod] = redis.call('PUBLISH', ARGV[3] .. pod, '[' .. table.concat(requests, ',') .. ']')
end
local result = {settled and 1 or 0}
for i = 3, #KEYS do
  local asked, silent = 0, 0
  for _, pod in ipairs(holders[i]) do
    if (listeners[pod] or 0) > 0 then asked = asked + 1 else silent = silent + 1 end
  end
  table.insert(result, asked)
  table.insert(result, silent)
end
return result
"""


class HubKeys(NamedTuple):
    """The names of one pipeline's keys and channels. Its braces keep them in one slot of a Redis cluster."""

    pipeline: str

    @property
    def _prefix(self) -> str:
        return f"tocsin:{{{self.pipeline}}}:hub:"

    @property
    def watch(self) -> str:
        """Return the key of the registry's own history."""
        return f"{self._prefix}watch"

    @property
    def pods(self) -> str:
        """Return the key of the leases."""
        return f"{self._prefix}pods"

    @property
    def pod_channels(self) -> str:
        """Return what the names of all pods' channels begin with."""
        return f"{self._prefix}pod:"

    def user(self, user_id: str) -> str:
        """Return the key of the pods that hold a user's connections."""
        return f"{self._prefix}user:{user_id}"

    def answers(self, consumer: str) -> str:
        """Return the channel on which a consumer hears the answers."""
        return f"{self._prefix}answers:{consumer}"


class Taken(StrEnum):
    """What a pod says of one request."""

    TAKEN = "taken"
    ABSENT = "absent"
    LEAVING = "leaving"
    """It is draining: the user may have been here a moment ago and is on the way to another pod."""
    STALLED = "stalled"
    """There is a connection, but its socket takes nothing at present."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One frame for one user; the answer goes to `consumer` under `number`. The frame is passed on unread."""

    consumer: str
    number: int
    user_id: str
    frame: msgspec.Raw


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What a pod made of request `number`."""

    number: int
    taken: Taken


class Verdict(Enum):
    """What came of one notification."""

    DELIVERED = auto()
    NOBODY = auto()
    """Certainly nobody is connected: an end."""
    MOVING = auto()
    """A pod crashed or drains; its clients are expected at another."""
    UNSURE = auto()
    """The registry does not know yet who is connected."""
    STALLED = auto()
    UNANSWERED = auto()


class Asked(NamedTuple):
    """What SEND said of one request: how many pods were asked, how many are silent, and is absence believed."""

    pods: int
    silent: int
    is_settled: bool


def decide_verdict(asked: Asked, answers: Sequence[Taken]) -> Verdict:
    """Decide what came of a notification, given the answers that arrived in time. One socket is enough."""
    if Taken.TAKEN in answers:
        return Verdict.DELIVERED
    if len(answers) < asked.pods:
        return Verdict.UNANSWERED
    if Taken.STALLED in answers:
        return Verdict.STALLED
    if Taken.LEAVING in answers or asked.silent:
        return Verdict.MOVING
    return Verdict.NOBODY if asked.is_settled else Verdict.UNSURE


def parse_asked(result: Sequence[int]) -> list[Asked]:
    """Return what SEND returned, for each request."""
    is_settled, counts = bool(result[0]), result[1:]
    return [Asked(pods, silent, is_settled) for pods, silent in zip(counts[::2], counts[1::2], strict=True)]


_requests = msgspec.json.Decoder(list[Request])
_answers = msgspec.json.Decoder(list[Answer])
encode = msgspec.json.Encoder().encode


def decode_requests(data: bytes) -> list[Request]:
    """Return the requests that a pod was sent. Raise MessageError if these bytes are none."""
    try:
        return _requests.decode(data)
    except msgspec.DecodeError as error:
        raise MessageError(f"not a batch of the hub: {error}") from error


def decode_answers(data: bytes) -> list[Answer]:
    """Return the answers that a consumer was sent. Raise MessageError if these bytes are none."""
    try:
        return _answers.decode(data)
    except msgspec.DecodeError as error:
        raise MessageError(f"not answers of the hub: {error}") from error
