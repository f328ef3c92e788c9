"""From a valid draft to a stored notification: the one way in, whatever carried the request.

Users first, then the id, then encode, send, await. Knows no HTTP and no framework, so that the routes and any faster
way in share it. Nothing here waits for Kafka on the event loop: `send` refuses at once or returns a future, and every
future is awaited with a deadline, so that a broken producer cannot keep a client forever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from tocsin_core.codec import Encoded, encode
from tocsin_core.errors import KafkaFailure, MessageError, OutcomeUnknown
from tocsin_core.message import MAX_BODY_BYTES
from tocsin_core.users import DirectoryUnavailable, UserDirectory
from tocsin_ingestion.draft import Draft
from tocsin_ingestion.idempotency import KeyTable, fingerprint
from tocsin_ingestion.identity import make_id
from tocsin_ingestion.problems import (
    BUSY,
    DIRECTORY_UNAVAILABLE,
    DRAINING,
    KAFKA_UNAVAILABLE,
    TOO_LARGE,
    UNKNOWN_USER,
    FieldError,
    Problem,
    explain_kafka_failure,
    invalid,
    outcome_unknown,
)

STALLED_AFTER_SECONDS = 3.0
"""While the oldest send waits longer than this, new ones are refused: they would only wait behind it."""
GRACE_SECONDS = 2.0
"""How much longer than the producer's own deadline an answer may take before it is given without the producer."""


class Sink(Protocol):
    """What `RecordProducer` offers, as far as ingestion needs it."""

    @property
    def in_flight(self) -> int:
        """How many records wait for Kafka."""
        ...

    @property
    def oldest_in_flight_seconds(self) -> float:
        """How long the oldest of them has waited."""
        ...

    def send(self, topic: str, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> asyncio.Future[Any]:
        """Enqueue a record; raise KafkaFailure at once or by way of the future."""
        ...


class Target(NamedTuple):
    """Where accepted notifications go, in whose name, and how much may be on its way."""

    topic: str
    tenant: str
    max_in_flight: int
    delivery_timeout_seconds: float

    @property
    def source(self) -> str:
        """Return the CloudEvents source."""
        return f"/pipelines/{self.tenant}"


class Accepted(NamedTuple):
    """A notification that Kafka has. `is_replay`: it had it before this request came."""

    id: str
    is_replay: bool = False
    partition: int | None = None
    offset: int | None = None


class _Sent(NamedTuple):
    id: str
    future: asyncio.Future[Any] | None  # None: stored by an earlier request with the same key
    has_key: bool


class Acceptor:
    """Accepts drafts until it is closed."""

    def __init__(
        self,
        directory: UserDirectory,
        sink: Sink,
        target: Target,
        *,
        keys: KeyTable | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._sink = sink
        self._target = target
        self._keys = KeyTable() if keys is None else keys
        self._clock = clock
        self._is_closed = False

    def close(self) -> None:
        """Refuse everything from now on; what was sent is still awaited."""
        self._is_closed = True

    async def accept(self, draft: Draft, *, traceparent: str, key: str | None = None) -> Accepted:
        """Store one notification and return its id. Raise Problem if it is not stored, or nobody knows whether."""
        sent = await self._send(draft, traceparent, key)
        if sent.future is not None:
            await asyncio.wait((sent.future,), timeout=self._patience_seconds)
        return self._conclude(sent)

    async def accept_all(
        self,
        drafts: Sequence[Draft | Problem],
        *,
        traceparent: str,
        key: str | None = None,
    ) -> list[Accepted | Problem]:
        """Store many: issue every send first, in order, then await them together. A Problem stays in its place."""
        sents = [await self._try_send(draft, traceparent, key, index) for index, draft in enumerate(drafts)]
        futures = [sent.future for sent in sents if isinstance(sent, _Sent) and sent.future is not None]
        if futures:
            await asyncio.wait(futures, timeout=self._patience_seconds)
        return [self._try_conclude(sent) if isinstance(sent, _Sent) else sent for sent in sents]

    @property
    def _patience_seconds(self) -> float:
        return self._target.delivery_timeout_seconds + GRACE_SECONDS

    async def _try_send(self, draft: Draft | Problem, traceparent: str, key: str | None, index: int) -> _Sent | Problem:
        if isinstance(draft, Problem):
            return draft
        try:
            return await self._send(draft, traceparent, key, index)
        except Problem as problem:
            return problem

    def _try_conclude(self, sent: _Sent) -> Accepted | Problem:
        try:
            return self._conclude(sent)
        except Problem as problem:
            return problem

    async def _send(self, draft: Draft, traceparent: str, key: str | None, index: int | None = None) -> _Sent:
        notification_id = make_id(self._target.tenant, key, index=index)
        if key is None:
            return _Sent(notification_id, await self._produce(draft, notification_id, traceparent), has_key=False)
        if not self._keys.claim(notification_id, fingerprint(draft), now=self._clock()):
            return _Sent(notification_id, None, has_key=True)
        try:
            future = await self._produce(draft, notification_id, traceparent, has_key=True)
        except BaseException:
            self._keys.release(notification_id)
            raise
        # Settled by the future itself, so that a client who hangs up before the answer changes nothing.
        future.add_done_callback(lambda done: self._settle(notification_id, done))
        return _Sent(notification_id, future, has_key=True)

    async def _produce(
        self,
        draft: Draft,
        notification_id: str,
        traceparent: str,
        *,
        has_key: bool = False,
    ) -> asyncio.Future[Any]:
        self._check_open()
        await self._check_users(draft)
        self._check_room()
        record = self._encode(draft, notification_id, traceparent)
        try:
            return self._sink.send(self._target.topic, record.key, record.value, record.headers)
        except KafkaFailure as failure:
            raise explain_kafka_failure(failure, has_key=has_key) from failure

    def _check_open(self) -> None:
        if self._is_closed:
            raise Problem(DRAINING, "Nothing was stored. Repeat: another instance answers.")

    async def _check_users(self, draft: Draft) -> None:
        try:
            for field, user_id in (("fromID", str(draft.from_id)), ("toID", str(draft.to_id))):
                if await self._directory.find(user_id) is None:
                    error = FieldError(field, f"no user has the id {user_id!r}")
                    raise Problem(UNKNOWN_USER, f"{field}: {error.detail}", errors=(error,))
        except DirectoryUnavailable as unavailable:
            raise Problem(DIRECTORY_UNAVAILABLE, "Nothing was stored. Repeat later.") from unavailable

    def _check_room(self) -> None:
        if self._sink.in_flight >= self._target.max_in_flight:
            raise Problem(BUSY, f"{self._target.max_in_flight} notifications wait for Kafka already. Repeat later.")
        if self._sink.oldest_in_flight_seconds > STALLED_AFTER_SECONDS:
            raise Problem(KAFKA_UNAVAILABLE, "Kafka is not confirming at present; nothing was stored. Repeat later.")

    def _encode(self, draft: Draft, notification_id: str, traceparent: str) -> Encoded:
        notification = draft.build_notification(notification_id)
        try:
            record = encode(
                notification,
                source=self._target.source,
                traceparent=traceparent,
                accepted_at=datetime.now(UTC),
            )
        except MessageError as error:
            raise invalid(FieldError("(body)", "cannot be stored so that it could be read again")) from error
        if len(record.value) > MAX_BODY_BYTES:
            raise Problem(TOO_LARGE, f"Written out, the notification is larger than {MAX_BODY_BYTES} bytes")
        return record

    def _settle(self, notification_id: str, done: asyncio.Future[Any]) -> None:
        failure = None if done.cancelled() else done.exception()
        if failure is None or isinstance(failure, OutcomeUnknown):
            is_stored = failure is None and not done.cancelled()
            self._keys.settle(notification_id, is_stored=is_stored, now=self._clock())
        else:
            self._keys.release(notification_id)

    def _conclude(self, sent: _Sent) -> Accepted:
        if sent.future is None:
            return Accepted(sent.id, is_replay=True)
        if not sent.future.done():
            sent.future.add_done_callback(_acknowledge)
            raise outcome_unknown(has_key=sent.has_key)
        failure = sent.future.exception()
        if failure is None:
            stored = sent.future.result()
            return Accepted(sent.id, partition=stored.partition, offset=stored.offset)
        if isinstance(failure, KafkaFailure):
            raise explain_kafka_failure(failure, has_key=sent.has_key) from failure
        raise failure


def _acknowledge(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()  # nobody waits any more: without this, asyncio would log it as never retrieved
