"""A consumer's side of the hub: asks the pods that hold a person's connections, and waits for what they say.

Sends go out in batches, a call of the script each: at 64 sends in flight, Redis sees one call where it would see 64.
Answers come on one channel per process, under a number. A batch whose call failed may have been published all the same,
which HubUnavailable says.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from tocsin_consumer.batches import Batches, TooManyWaiting
from tocsin_core import hub, store
from tocsin_core.complaints import Complaints
from tocsin_core.errors import MessageError, TocsinError
from tocsin_core.hub import Asked, HubKeys, Request, Taken, Verdict, decide_verdict
from tocsin_core.logging import get_logger
from tocsin_core.settings import RedisSettings

ANSWER_SECONDS = 3.0
"""How long pods are waited for, the way there and back included."""
MAX_BATCH = 64
MAX_CALLS = 2
SPARE_CONNECTIONS = 2

_log = get_logger(__name__)


class HubUnavailable(TocsinError):
    """The registry cannot be asked. `is_uncertain` says that the frame may have been sent all the same."""

    retriable: ClassVar[bool] = True

    def __init__(self, message: str, *, is_uncertain: bool) -> None:
        super().__init__(message)
        self.is_uncertain = is_uncertain


class _Send:
    """One notification on its way: what the script said of it, and what pods answered so far."""

    __slots__ = ("_answers", "_asked", "number", "outcome", "payload", "user_id")

    def __init__(self, number: int, user_id: str, payload: bytes) -> None:
        self.number = number
        self.user_id = user_id
        self.payload = payload
        self.outcome: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._asked: Asked | None = None
        self._answers: list[Taken] = []

    @property
    def is_asked(self) -> bool:
        return self._asked is not None

    def note_asked(self, asked: Asked) -> None:
        self._asked = asked
        self._conclude()

    def note_answer(self, taken: Taken) -> None:  # may come before the script's own reply was read
        self._answers.append(taken)
        self._conclude()

    def _conclude(self) -> None:
        if self.outcome.done() or self._asked is None:
            return
        verdict = decide_verdict(self._asked, self._answers)
        if verdict is not Verdict.UNANSWERED:
            self.outcome.set_result(verdict)


class HubClient:
    """Sends frames to whoever is connected, through one pipeline's hub."""

    def __init__(self, settings: RedisSettings, *, pipeline: str) -> None:
        """`pipeline` (`namespace/name`) separates the pipelines that share a server."""
        self._redis = store.connect(settings, max_connections=MAX_CALLS + SPARE_CONNECTIONS)
        self._keys = HubKeys(pipeline)
        self._name = secrets.token_hex(8)
        self._script = self._redis.register_script(hub.SEND)
        self._subscription = store.Subscription(self._redis, self._keys.answers(self._name), self._on_answers)
        self._complaints = Complaints(_log.warning)
        self._numbers = itertools.count(1)
        self._open: dict[int, _Send] = {}
        self._batches: Batches[_Send, Asked] = Batches(self._call, max_running=MAX_CALLS, max_size=MAX_BATCH)
        self._is_started = False

    async def send(self, user_id: str, frame: bytes) -> Verdict:
        """Offer a JSON frame to every connection of a user and return what came of it.

        Raise HubUnavailable if the store does not answer.
        """
        await self._listen()
        number = next(self._numbers)
        payload = hub.encode(Request(self._name, number, user_id, msgspec.Raw(frame)))
        send = self._open[number] = _Send(number, user_id, payload)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                send.note_asked(await self._batches.ask(send))
                return await send.outcome
        except TimeoutError as error:
            if send.is_asked:
                return Verdict.UNANSWERED
            raise HubUnavailable(store.explain(error), is_uncertain=True) from error
        except TooManyWaiting as error:
            raise HubUnavailable("too many sends wait for the store", is_uncertain=False) from error
        except store.STORE_ERRORS as error:
            raise HubUnavailable(store.explain(error), is_uncertain=True) from error
        finally:
            del self._open[number]

    async def close(self) -> None:
        """Stop listening and close all connections. Calling it twice is fine."""
        await self._batches.close()
        await self._subscription.close()
        await self._redis.aclose()

    async def _listen(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._subscription.start()
        if self._subscription.is_listening:
            return
        try:
            async with asyncio.timeout(store.TIMEOUT_SECONDS):
                await self._subscription.wait_listening()
        except TimeoutError as error:
            raise HubUnavailable(store.explain(error), is_uncertain=False) from error

    async def _call(self, batch: Sequence[_Send]) -> list[Asked]:
        keys = [self._keys.watch, self._keys.pods, *(self._keys.user(send.user_id) for send in batch)]
        times = [int(hub.LEASE_SECONDS * 1000), int(hub.GRACE_SECONDS * 1000)]
        arguments: list[str | int | bytes] = [*times, self._keys.pod_channels, *(send.payload for send in batch)]
        return hub.parse_asked(await self._script(keys=keys, args=arguments))

    def _on_answers(self, data: bytes) -> None:
        try:
            answers = hub.decode_answers(data)
        except MessageError as error:
            self._complaints.about("a pod of another version", str(error))
            return
        for answer in answers:
            if send := self._open.get(answer.number):
                send.note_answer(answer.taken)
