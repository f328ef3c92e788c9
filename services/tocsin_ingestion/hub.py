"""This pod's side of the hub: says in Redis who is connected here, and hears what consumers have for them.

Connections come in storms (a rollout, a network that is back), so registrations are written in batches: whoever
registers waits for the one write that is under way and shares the next. What the registry should say of a user is
read from the open connections at the moment of writing, so a connection that came and went leaves nothing behind,
in whatever order the two were noticed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

from tocsin_core import hub, store
from tocsin_core.complaints import Complaints
from tocsin_core.errors import MessageError, TocsinError
from tocsin_core.hub import Answer, HubKeys, Request, Taken
from tocsin_core.logging import get_logger
from tocsin_core.settings import RedisSettings
from tocsin_ingestion.sockets import Sockets

MAX_BATCH = 500
MAX_CONNECTIONS = 8

_log = get_logger(__name__)


class HubUnavailable(TocsinError):
    """The registry cannot be written, so nobody would find a connection made now."""

    retriable: ClassVar[bool] = True


class Hub:
    """Registers the users of `sockets`, and offers them what consumers send."""

    def __init__(
        self,
        settings: RedisSettings,
        sockets: Sockets,
        *,
        pipeline: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pipeline` (`namespace/name`) separates the pipelines that share a server."""
        self._redis = store.connect(settings, max_connections=MAX_CONNECTIONS)
        self._sockets = sockets
        self._keys = HubKeys(pipeline)
        self._clock = clock
        self._pod = secrets.token_hex(8)  # not the pod's name: a process that was started again is another
        self._heartbeat = self._redis.register_script(hub.HEARTBEAT)
        self._leave = self._redis.register_script(hub.LEAVE)
        self._subscription = store.Subscription(self._redis, self._keys.pod_channels + self._pod, self._on_requests)
        self._complaints = Complaints(_log.warning)
        self._tasks: list[asyncio.Task[None]] = []
        self._unwritten: set[str] = set()
        self._next_write: asyncio.Future[None] | None = None
        self._write_wanted = asyncio.Event()
        self._answers: defaultdict[str, list[Answer]] = defaultdict(list)
        self._answers_wanted = asyncio.Event()
        self._renewed_at = float("-inf")
        self._refreshed_at = float("-inf")

    def start(self) -> None:
        """Begin to renew the lease, to write and to listen; returns at once, whether the store is there or not."""
        self._subscription.start()
        loops = (self._keep_lease(), self._keep_writing(), self._keep_answering())
        self._tasks = [asyncio.create_task(each) for each in loops]

    async def close(self) -> None:
        """Let the lease lapse: consumers wait for the clients that were here until they are somewhere else."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._subscription.close()
        try:
            await self._leave(keys=[self._keys.pods], args=[self._pod])
        except store.STORE_ERRORS as error:  # it lapses by itself
            _log.warning("the registry was not told that this instance leaves", reason=store.explain(error))
        await self._redis.aclose()

    async def register(self, user_id: str) -> None:
        """Return when consumers find this user here. Raise HubUnavailable if that cannot be had now."""
        try:
            async with asyncio.timeout(store.TIMEOUT_SECONDS):
                await asyncio.shield(self._want_written(user_id))
        except (TimeoutError, *store.STORE_ERRORS) as error:
            raise HubUnavailable(store.explain(error)) from error

    def forget(self, user_id: str) -> None:
        """Have the registry corrected, soon, after a connection of this user has ended.

        While the pod drains nothing is taken back: its clients are on their way to another pod.
        """
        if not self._sockets.is_leaving:
            self._want_written(user_id)

    def _want_written(self, user_id: str) -> asyncio.Future[None]:
        self._unwritten.add(user_id)
        return self._want_write()

    def _want_write(self) -> asyncio.Future[None]:
        if self._next_write is None:
            self._next_write = asyncio.get_running_loop().create_future()
            self._next_write.add_done_callback(_acknowledge)
        self._write_wanted.set()
        return self._next_write

    async def _keep_writing(self) -> None:
        while True:
            await self._write_wanted.wait()
            self._write_wanted.clear()
            written, self._next_write = self._next_write, None
            users, self._unwritten = list(self._unwritten), set()
            try:
                for start in range(0, len(users), MAX_BATCH):
                    await self._write(users[start : start + MAX_BATCH])
            except store.STORE_ERRORS as error:
                self._complaints.about("connections cannot be registered", store.explain(error))
                self._unwritten.update(users)  # tried again with the next heartbeat that succeeds
                _settle(written, error)
            else:
                _settle(written, None)

    async def _write(self, users: Iterable[str]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for user_id in users:
                key = self._keys.user(user_id)
                if self._sockets.holds(user_id):
                    pipeline.sadd(key, self._pod)
                    pipeline.expire(key, hub.KEEP_SECONDS)
                else:
                    pipeline.srem(key, self._pod)
            await pipeline.execute()

    async def _keep_lease(self) -> None:
        while True:
            try:
                await self._renew()
            except store.STORE_ERRORS as error:
                self._complaints.about("the registry is away: nobody here can be found", store.explain(error))
                self._refreshed_at = float("-inf")  # nobody knows what it still holds
            await asyncio.sleep(hub.HEARTBEAT_SECONDS)

    async def _renew(self) -> None:
        began = self._clock()
        leases: list[str | int] = [
            self._pod,
            int(hub.LEASE_SECONDS * 1000),
            int(hub.GRACE_SECONDS * 1000),
            hub.KEEP_SECONDS,
        ]
        is_known = await self._heartbeat(keys=[self._keys.watch, self._keys.pods], args=leases)
        self._renewed_at = began
        if not is_known or began - self._refreshed_at > hub.REFRESH_SECONDS:
            self._unwritten.update(self._sockets.users)
            self._refreshed_at = began
        if self._unwritten:
            self._want_write()

    def _on_requests(self, data: bytes) -> None:
        if self._clock() - self._renewed_at > hub.LEASE_SECONDS:
            return  # this process stood still for so long that consumers have given up on these
        try:
            requests = hub.decode_requests(data)
        except MessageError as error:
            self._complaints.about("a consumer of another version", str(error))
            return
        for request in requests:
            self._sockets.offer(request.user_id, bytes(request.frame), partial(self._answer, request))

    def _answer(self, request: Request, taken: Taken) -> None:
        self._answers[request.consumer].append(Answer(request.number, taken))
        self._answers_wanted.set()

    async def _keep_answering(self) -> None:
        while True:
            await self._answers_wanted.wait()
            self._answers_wanted.clear()
            answers = dict(self._answers)
            self._answers.clear()
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for consumer, its_answers in answers.items():
                        pipeline.publish(self._keys.answers(consumer), hub.encode(its_answers))
                    await pipeline.execute()
            except store.STORE_ERRORS as error:  # consumers take silence for an unknown outcome, and send again
                self._complaints.about("answers to consumers were lost", store.explain(error))


def _settle(written: asyncio.Future[None] | None, error: Exception | None) -> None:
    if written is None or written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)


def _acknowledge(written: asyncio.Future[None]) -> None:
    if not written.cancelled():
        written.exception()  # nobody may be waiting; without this, asyncio would log it as never retrieved
