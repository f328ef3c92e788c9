"""Whether this pod should get requests: it has seen the topic's metadata, and the user directory answers.

A pause of Kafka shorter than TOLERATED_SECONDS changes nothing: it hits all pods at once, and turning them all red
would replace our 503 with Retry-After by a refused connection. A user directory that was there and is away is borne for
as long as users are remembered: until then requests can be answered, and /readyz says what is wrong beside its "ok".
Reasons go to kubelet, and to the log when they change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from tocsin_core.errors import KafkaFailure
from tocsin_core.users import DirectoryUnavailable

TOLERATED_SECONDS = 20.0
"""Above two failed looks at Kafka, and so above any pause of 10 seconds."""
USERS_SECONDS = 4.0
"""How long one look waits for the users. A directory may take longer to answer, but must not keep us from the topic."""

_log = structlog.get_logger(__name__)


class Readiness:
    """What was last seen of the topic and of the users. `observe` looks, `check` answers."""

    def __init__(
        self,
        topic: str,
        see_topic: Callable[[], Awaitable[object]],
        see_users: Callable[[], Awaitable[object]],
        *,
        users_patience_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._see_topic = see_topic
        self._see_users = see_users
        self._clock = clock
        self._topic_seen_at: float | None = None
        self._topic_trouble = f"topic {topic}: its metadata was not seen yet"
        self._users_patience_seconds = users_patience_seconds
        self._users_seen_at = float("-inf")
        self._users_trouble = "the users were not read yet"
        self._users_look: asyncio.Task[None] | None = None
        self._is_leaving = False

    def leave(self) -> None:
        """Be unready from now on: the process is about to end."""
        self._is_leaving = True

    def check(self) -> str:
        """Return why no request should come here, "" if they should."""
        if self._is_leaving:
            return "draining"
        if self._topic_seen_at is None or self._clock() - self._topic_seen_at > TOLERATED_SECONDS:
            return self._topic_trouble or "Kafka was not asked for a while"
        return "" if self._bears_users_trouble() else self._users_trouble

    def remark(self) -> str:
        """Return what is wrong although requests may come, "" if nothing is."""
        return self._users_trouble if self._bears_users_trouble() else ""

    async def observe(self) -> None:
        """Look at the topic and at the users once. Never raises for what is expected to fail.

        Users who take long to see are waited for by the next look.
        """
        looking = self._users_look = self._users_look or asyncio.create_task(self._observe_users())
        await self._observe_topic()
        await asyncio.wait((looking,), timeout=USERS_SECONDS)
        if looking.done():
            self._users_look = None
            looking.result()

    async def _observe_topic(self) -> None:
        try:
            await self._see_topic()
        except KafkaFailure as failure:
            trouble = f"topic {self._topic}: {failure}"
            if trouble != self._topic_trouble:
                _log.error("topic not usable", topic=self._topic, reason=str(failure), advice=failure.advice)
            self._topic_trouble = trouble
        else:
            if self._topic_trouble:
                _log.info("topic usable", topic=self._topic)
            self._topic_trouble, self._topic_seen_at = "", self._clock()

    async def _observe_users(self) -> None:
        try:
            await self._see_users()
        except DirectoryUnavailable as unavailable:
            self._users_trouble = str(unavailable)  # the directory itself logged why
        else:
            self._users_trouble, self._users_seen_at = "", self._clock()

    def _bears_users_trouble(self) -> bool:
        return self._clock() - self._users_seen_at <= self._users_patience_seconds
