"""The way to the pipeline's Redis, or any server that speaks its protocol, and a subscription that notices silence.

`connect` gives a client that never repeats a command: whether one that got no answer may be sent again is for its
caller to say. A lost subscription is news that redis-py does not bring where the server's machine died without a
word, so a quiet one is asked for a sign of life.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from tocsin_core.complaints import Complaints
from tocsin_core.logging import get_logger
from tocsin_core.settings import RedisSettings

TIMEOUT_SECONDS = 3.0
QUIET_SECONDS = 5.0
AGAIN_SECONDS = 0.5
STORE_ERRORS = (RedisError, OSError)

_log = get_logger(__name__)


def connect(settings: RedisSettings, *, max_connections: int) -> Redis:
    """Return a client that repeats nothing; it connects when it is first used."""
    return Redis.from_url(**build_options(settings), max_connections=max_connections, retry=Retry(NoBackoff(), 0))


def build_options(settings: RedisSettings) -> dict[str, Any]:
    """Return what every client of the store is made with; how often it repeats a command is for each to say."""
    return {
        "url": settings.url,
        "username": settings.username or None,
        "password": settings.password.get_secret_value() or None,
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
    }


def explain(error: BaseException, *, setting: str = "redis.url") -> str:
    """Return what is wrong with the store and what to do, without its address, which may carry a password."""
    if isinstance(error, ResponseError):
        return f"the store refuses: {error}"
    return f"the store does not answer ({type(error).__name__}): check {setting} and that the server runs"


class Subscription:
    """Listens on one channel until closed, and subscribes afresh whenever that was lost."""

    def __init__(self, redis: Redis, channel: str, on_message: Callable[[bytes], None]) -> None:
        """Hand each message to `on_message`, on the event loop; it must not raise."""
        self._redis = redis
        self._channel = channel
        self._on_message = on_message
        self._complaints = Complaints(_log.warning)
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen; returns at once."""
        self._task = asyncio.create_task(self._run(), name=f"listen {self._channel}")

    async def wait_listening(self) -> None:
        """Return when the server has confirmed the subscription."""
        await self._listening.wait()

    @property
    def is_listening(self) -> bool:
        """Whether the subscription stands, as far as anybody knows."""
        return self._listening.is_set()

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except STORE_ERRORS as error:
                self._complaints.about("a subscription was lost and is made again", explain(error))
            except Exception:  # noqa: BLE001 - the top of a loop whose end would make this process deaf for ever
                _log.exception("a subscription broke and is made again: this is a defect")
            await asyncio.sleep(AGAIN_SECONDS)

    async def _listen(self) -> None:
        async with contextlib.aclosing(self._redis.pubsub()) as pubsub:
            await pubsub.subscribe(self._channel)
            try:
                while True:
                    self._handle(await self._next(pubsub))
            finally:
                self._listening.clear()

    async def _next(self, pubsub: PubSub) -> dict[str, Any]:
        message: dict[str, Any] | None = await pubsub.get_message(timeout=QUIET_SECONDS)
        if message is None:
            await pubsub.ping()
            message = await pubsub.get_message(timeout=TIMEOUT_SECONDS)
        if message is None:
            raise TimeoutError("no sign of life")
        return message

    def _handle(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._listening.set()
        elif message["type"] == "message":
            self._on_message(message["data"])
