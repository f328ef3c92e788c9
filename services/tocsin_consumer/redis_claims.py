"""Claims in any server that speaks the Redis protocol.

One key per notification, channel and device. Everything asked within two milliseconds goes to the server as one call
of one script. (A pipeline of a call each was measured at three times the CPU: the client's share is nearly all per
command.) A repeated call is harmless, so a broken connection is tried once more.

A *generation* tells that the server has forgotten everything (FLUSHALL, an empty disk): it is made when there is none,
and holds the moment it was made. What was accepted before that moment and is not known any more may have been sent:
claiming it is uncertain, and counted. Only where nobody has ever committed an offset can nothing have been sent.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from tocsin_consumer.batches import Batches, TooManyWaiting
from tocsin_consumer.claim_script import BURIED, DONE, SCRIPT, SCRIPT_SHA, UNCERTAIN
from tocsin_consumer.claim_store import decide_advice, decide_refusal, explain, observe_store
from tocsin_consumer.claims import NO_PLACE, Buried, Claim, ClaimKey, ClaimsUnavailable, Done, Granted, Held
from tocsin_core.complaints import Complaints
from tocsin_core.errors import KafkaFailure
from tocsin_core.logging import get_logger
from tocsin_core.settings import RedisSettings
from tocsin_core.store import build_options

KEEP_SECONDS = 86_400
AWAY_SECONDS = 1.0
"""After a call that failed, requests fail at once for so long: a stalled server costs a timeout a second, not each."""
POLL_SECONDS = 0.25
LOOK_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 1.0
MAX_CALLS = 2
APART_SECONDS = 0.002
"""A call costs hundreds of microseconds of CPU whatever it asks, so a busy process makes no more than 500 a second.
That adds to a delivery two milliseconds for its claim and two for writing down that it was sent, at the most."""
SPARE_CONNECTIONS = 2
UNSEEN = "the claim store has not been looked at yet"

_log = get_logger(__name__)


class Request(NamedTuple):
    """What the script is asked about one key."""

    key: str
    line: str


def build_request(
    key: str, verb: str, token: str = "", *, lease_ms: int = 0, accepted_at_ms: int = 0, place: str = NO_PLACE
) -> Request:
    """Return a request with its line as the script reads it; neither place nor token may have blanks."""
    return Request(key, f"{verb} {lease_ms} {accepted_at_ms} {place} {token}\n")


async def _is_never_new() -> bool:
    return False


class RedisClaims:
    """Claims of one pipeline."""

    def __init__(
        self,
        settings: RedisSettings,
        *,
        pipeline: str,
        keep_seconds: int = KEEP_SECONDS,
        is_new: Callable[[], Awaitable[bool]] = _is_never_new,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pipeline` (`namespace/name`) separates the pipelines that share a server.

        `keep_seconds` must be no less than a notification is worth sending. `is_new` is asked when the store knows
        nothing of the pipeline: True only if nothing can have been sent yet; a KafkaFailure has it asked again, and
        nothing is claimed before it answers.
        """
        self._redis = Redis.from_url(
            **build_options(settings),
            max_connections=MAX_CALLS + SPARE_CONNECTIONS,
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        # The braces keep a pipeline's keys in one slot of a Redis cluster, so that a script may touch several of them.
        self._prefix = f"tocsin:{{{pipeline}}}"
        self._keep_seconds = max(keep_seconds, KEEP_SECONDS)
        self._is_new = is_new
        self._clock = clock
        self._batches: Batches[Request, int] = Batches(self._call, max_running=MAX_CALLS, apart_seconds=APART_SECONDS)
        self._refusal = UNSEEN
        self._absence = ""
        self._away_until = float("-inf")
        self._generation = b""
        self._advice = ""
        self._watch: asyncio.Task[None] | None = None
        self._complaints = Complaints(_log.warning)

    @property
    def trouble(self) -> str:
        """Return why nothing can be claimed at the moment and what to do about it, or ""."""
        return self._absence or self._refusal

    async def start(self) -> None:
        """Look at the store for the first time, and go on looking now and then. Never raises for the store's sake."""
        await self._look()
        self._watch = asyncio.create_task(self._keep_looking(), name="watch-claim-store")

    async def claim(
        self, key: ClaimKey, token: str, *, lease_seconds: float, accepted_at: datetime, place: str = NO_PLACE
    ) -> Claim:
        """Claim the right to send. Raise ClaimsUnavailable if the store does not answer or cannot be trusted."""
        if self._refusal:
            raise ClaimsUnavailable(self.trouble)
        asked_at = self._clock()  # before the server's clock starts the lease: ours never ends later than the server's
        accepted_at_ms = max(1, int(accepted_at.timestamp() * 1000))
        lease_ms = int(lease_seconds * 1000)
        name = self._name(key)
        answer = await self._ask(
            build_request(name, "claim", token, lease_ms=lease_ms, accepted_at_ms=accepted_at_ms, place=place)
        )
        if answer == DONE:
            return Done()
        if answer == BURIED:
            return Buried()
        if answer > 0:
            return Held(min(answer / 1000, POLL_SECONDS))
        return Granted(token, is_uncertain=answer == UNCERTAIN, holds_until=asked_at + lease_seconds)

    async def mark_done(self, key: ClaimKey) -> None:
        """Remember that it was sent. Raise ClaimsUnavailable if the store does not answer."""
        await self._ask(build_request(self._name(key), "done"))

    async def mark_buried(self, key: ClaimKey, *, place: str) -> None:
        """Remember that it is a dead letter. Raise ClaimsUnavailable if the store does not answer."""
        await self._ask(build_request(self._name(key), "bury", place=place))

    async def release(self, key: ClaimKey, token: str, *, is_uncertain: bool) -> None:
        """Let go of a claim that is still ours. Raise ClaimsUnavailable if the store does not answer."""
        await self._ask(build_request(self._name(key), "doubt" if is_uncertain else "forget", token))

    async def close(self) -> None:
        """Close all connections."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._batches.close()
        await self._redis.aclose()

    async def _ask(self, request: Request) -> int:
        if self._clock() < self._away_until:
            raise ClaimsUnavailable(self._absence)
        try:
            return await self._batches.ask(request)
        except TooManyWaiting as error:
            raise ClaimsUnavailable("the claim store answers too slowly: give it more CPU") from error
        except (RedisError, OSError) as error:
            raise ClaimsUnavailable(explain(error)) from error

    async def _call(self, requests: Sequence[Request]) -> Sequence[int]:
        try:
            reply = await self._evaluate(requests)
        except (RedisError, OSError) as error:
            self._absence = explain(error)
            self._away_until = self._clock() + AWAY_SECONDS
            raise
        self._absence = ""
        self._away_until = float("-inf")
        generation, *answers = reply.split()
        self._note_generation(generation)
        return [int(answer) for answer in answers]

    async def _evaluate(self, requests: Sequence[Request]) -> bytes:
        parts: list[str | int] = [f"{self._prefix}:uncertain", f"{self._prefix}:generation"]
        parts += [request.key for request in requests]
        parts += [self._keep_seconds, secrets.token_hex(8), "".join([request.line for request in requests])]
        try:
            reply = await self._redis.evalsha(SCRIPT_SHA, len(requests) + 2, *parts)
        except NoScriptError:  # the server was restarted or flushed; EVAL makes it remember
            reply = await self._redis.eval(SCRIPT, len(requests) + 2, *parts)
        return cast("bytes", reply)

    def _note_generation(self, generation: bytes) -> None:
        if self._generation and generation != self._generation:
            _log.error(
                "the claim store lost its memory",
                consequence="what was accepted before now may be sent again, and counts as uncertain",
                advice="set appendonly yes and maxmemory-policy noeviction, and let nobody flush it",
            )
        self._generation = generation

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_SECONDS if self.trouble else LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        try:
            facts = await observe_store(self._redis)
            await self._make_first_generation()
            await self._call(())
        except (RedisError, OSError) as error:
            self._absence = explain(error)
        except KafkaFailure as failure:
            self._refusal = f"the claim store is empty, and whether anything was sent before is not known: {failure}"
        else:
            self._refusal = decide_refusal(facts)
            self._advise(decide_advice(facts))
        if self.trouble:
            self._complaints.about("nothing can be claimed", self.trouble)

    async def _make_first_generation(self) -> None:
        name = f"{self._prefix}:generation"
        if not self._generation and not await self._redis.exists(name) and await self._is_new():
            await self._redis.set(name, f"{secrets.token_hex(8)}@0", nx=True)

    def _advise(self, advice: str) -> None:
        if advice != self._advice:
            self._advice = advice
            if advice:
                _log.warning("the claim store could be safer", advice=advice)

    def _name(self, key: ClaimKey) -> str:
        # A device's name may be long, secret and full of colons: its digest is none of these.
        device = blake2b(key.device.encode(), digest_size=12).hexdigest() if key.device else ""
        return f"{self._prefix}:{key.channel}:{device}:{key.notification_id}"
