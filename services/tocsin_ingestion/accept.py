"""From a valid draft to a stored notification: the one way in, whatever carried the request.

Users first, then the id, then encode, send, await. Knows no HTTP and no framework, so that the routes and the hot path
share it: the routes await `accept`; the hot path, which has no task to await in, calls `try_send` and later `conclude`.
Nothing here waits for Kafka on the event loop: `send` refuses at once or returns a future, and every future is awaited
with a deadline, so that a broken producer cannot keep a client forever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from tocsin_core.codec import Headers, build_shared_headers, encode_beside
from tocsin_core.errors import KafkaFailure, MessageError, OutcomeUnknown
from tocsin_core.message import MAX_BODY_BYTES
from tocsin_core.users import QuickUserDirectory
from tocsin_ingestion.admission import DEFAULT_LIMITS, Admission, Limits, Load
from tocsin_ingestion.draft import Draft
from tocsin_ingestion.idempotency import KeyTable, fingerprint
from tocsin_ingestion.identity import make_id
from tocsin_ingestion.problems import (
    DRAINING,
    TOO_LARGE,
    FieldError,
    Problem,
    explain_kafka_failure,
    invalid,
    outcome_unknown,
)
from tocsin_ingestion.recipients import find_refusals

GRACE_SECONDS = 2.0
"""How much longer than the producer's own deadline an answer may take before it is given without the producer."""


class Sink(Load, Protocol):
    """What `RecordProducer` offers, as far as ingestion needs it."""

    def send(self, topic: str, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> asyncio.Future[Any]:
        """Enqueue a record; raise KafkaFailure at once or by way of the future."""
        ...


class Target(NamedTuple):
    """Where accepted notifications go, in whose name, and how long that may take."""

    topic: str
    tenant: str
    delivery_timeout_seconds: float

    @property
    def source(self) -> str:
        """Return the CloudEvents source."""
        return f"/pipelines/{self.tenant}"


class Accepted(msgspec.Struct, frozen=True):
    """A notification that Kafka has. `is_replay`: it had it before this request came."""

    id: str
    is_replay: bool = False
    partition: int | None = None
    offset: int | None = None


class Sent(msgspec.Struct, frozen=True):
    """A notification on its way: `conclude` says how that ended. No future: an earlier request stored it."""

    id: str
    future: asyncio.Future[Any] | None
    has_key: bool


class Acceptor:
    """Accepts drafts until it is closed."""

    def __init__(
        self,
        directory: QuickUserDirectory,
        sink: Sink,
        target: Target,
        *,
        limits: Limits = DEFAULT_LIMITS,
        keys: KeyTable | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.admission = Admission(sink, limits)
        self._directory = directory
        self._sink = sink
        self._target = target
        self._topic, self._source = target.topic, target.source
        self._keys = KeyTable() if keys is None else keys
        self._clock = clock
        self._is_closed = False

    def close(self) -> None:
        """Refuse everything from now on; what was sent is still awaited."""
        self._is_closed = True

    @property
    def patience_seconds(self) -> float:
        """Return how long a client may wait for the end of what was sent."""
        return self._target.delivery_timeout_seconds + GRACE_SECONDS

    async def accept(self, draft: Draft, *, traceparent: str, key: str | None = None) -> Accepted:
        """Store one notification and return its id. Raise Problem if it is not stored, or nobody knows whether."""
        refusals = await self._find_refusals([draft])
        headers = self._build_headers(traceparent, datetime.now(UTC))
        sent = self._send(draft, headers, key, refusal=refusals.get(0) or self._find_obstacle())
        if sent.future is not None:
            await asyncio.wait((sent.future,), timeout=self.patience_seconds)
        return self.conclude(sent)

    async def accept_all(
        self,
        drafts: Sequence[Draft | Problem],
        *,
        traceparent: str,
        key: str | None = None,
    ) -> list[Accepted | Problem]:
        """Store many: find their users, issue every send, in order, then await them. A Problem stays in its place."""
        refusals = await self._find_refusals(drafts)
        sents = self._send_all(drafts, self._build_headers(traceparent, datetime.now(UTC)), key, refusals)
        futures = [sent.future for sent in sents if isinstance(sent, Sent) and sent.future is not None]
        if futures:
            await asyncio.wait(futures, timeout=self.patience_seconds)
        return self.conclude_all(sents)

    def try_send(self, draft: Draft, *, traceparent: str, key: str | None = None, now: datetime) -> Sent | None:
        """Send at once, without waiting for anything. None if the users must be looked up first: use `accept`.

        Raise Problem if it is refused.
        """
        if not self._knows_users_of(draft):
            return None
        return self._send(draft, self._build_headers(traceparent, now), key, refusal=self._find_obstacle())

    def try_send_all(
        self,
        drafts: Sequence[Draft | Problem],
        *,
        traceparent: str,
        key: str | None = None,
        now: datetime,
    ) -> list[Sent | Problem] | None:
        """Send many at once, in order. None, and nothing sent, if any user must be looked up: use `accept_all`."""
        pairs = [(draft.from_id, draft.to_id) for draft in drafts if isinstance(draft, Draft)]
        if all(map(self._directory.knows, {str(user_id) for pair in pairs for user_id in pair})):  # each is asked once
            return self._send_all(drafts, self._build_headers(traceparent, now), key, {})
        return None

    def conclude(self, sent: Sent) -> Accepted:
        """Return how a send ended. Raise Problem if it failed, or if nobody knows yet: then nobody waits any more."""
        future = sent.future
        if future is None:
            return Accepted(sent.id, is_replay=True)
        if not future.done():
            future.add_done_callback(_acknowledge)
            raise outcome_unknown(has_key=sent.has_key)
        failure = future.exception()
        if failure is None:
            stored = future.result()
            return Accepted(sent.id, False, stored.partition, stored.offset)  # by name it costs twice as much
        if isinstance(failure, KafkaFailure):
            raise explain_kafka_failure(failure, has_key=sent.has_key) from failure
        raise failure

    def conclude_all(self, sents: Sequence[Sent | Problem]) -> list[Accepted | Problem]:
        """Return how each send ended."""
        outcomes: list[Accepted | Problem] = []
        for sent in sents:
            try:
                outcomes.append(self.conclude(sent) if isinstance(sent, Sent) else sent)
            except Problem as problem:
                outcomes.append(problem)
        return outcomes

    def _knows_users_of(self, draft: Draft) -> bool:
        return self._directory.knows(str(draft.from_id)) and self._directory.knows(str(draft.to_id))

    async def _find_refusals(self, drafts: Sequence[Draft | Problem]) -> dict[int, Problem]:
        unsure = {
            index: draft
            for index, draft in enumerate(drafts)
            if isinstance(draft, Draft) and not self._knows_users_of(draft)
        }
        return await find_refusals(self._directory, unsure)

    def _send_all(
        self,
        drafts: Sequence[Draft | Problem],
        headers: Headers,
        key: str | None,
        refusals: dict[int, Problem],
    ) -> list[Sent | Problem]:
        obstacle = self._find_obstacle()
        sents: list[Sent | Problem] = []
        for index, draft in enumerate(drafts):
            try:
                if isinstance(draft, Problem):
                    sents.append(draft)
                else:
                    sents.append(self._send(draft, headers, key, index, refusal=refusals.get(index) or obstacle))
            except Problem as problem:
                sents.append(problem)
        return sents

    def _send(
        self,
        draft: Draft,
        headers: Headers,
        key: str | None,
        index: int | None = None,
        *,
        refusal: Problem | None = None,
    ) -> Sent:
        notification_id = make_id(self._target.tenant, key, index=index)
        if key is None:
            return Sent(notification_id, self._produce(draft, notification_id, headers, refusal), has_key=False)
        if not self._keys.claim(notification_id, fingerprint(draft), now=self._clock()):
            return Sent(notification_id, None, has_key=True)
        try:
            future = self._produce(draft, notification_id, headers, refusal, has_key=True)
        except BaseException:
            self._keys.release(notification_id)
            raise
        # Settled by the future itself, so that a client who hangs up before the answer changes nothing.
        future.add_done_callback(lambda done: self._settle(notification_id, done))
        return Sent(notification_id, future, has_key=True)

    def _produce(
        self,
        draft: Draft,
        notification_id: str,
        headers: Headers,
        refusal: Problem | None,
        *,
        has_key: bool = False,
    ) -> asyncio.Future[Any]:
        if refusal is not None:
            raise refusal
        self.admission.check_room()
        try:
            key, value, own_headers = encode_beside(headers, draft.build_notification(notification_id))
        except MessageError as error:
            raise invalid(FieldError("(body)", "cannot be stored so that it could be read again")) from error
        if len(value) > MAX_BODY_BYTES:
            raise Problem(TOO_LARGE, f"Written out, the notification is larger than {MAX_BODY_BYTES} bytes")
        try:
            return self._sink.send(self._topic, key, value, own_headers)
        except KafkaFailure as failure:
            raise explain_kafka_failure(failure, has_key=has_key) from failure

    def _find_obstacle(self) -> Problem | None:
        """Return why nothing can be sent at present, whatever it is."""
        if self._is_closed:
            return Problem(DRAINING, "Nothing was stored. Repeat: another instance answers.")
        return self.admission.find_stall()

    def _build_headers(self, traceparent: str, now: datetime) -> Headers:
        return build_shared_headers(source=self._source, traceparent=traceparent, accepted_at=now)

    def _settle(self, notification_id: str, done: asyncio.Future[Any]) -> None:
        failure = None if done.cancelled() else done.exception()
        if failure is None or isinstance(failure, OutcomeUnknown):
            is_stored = failure is None and not done.cancelled()
            self._keys.settle(notification_id, is_stored=is_stored, now=self._clock())
        else:
            self._keys.release(notification_id)


def _acknowledge(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()  # nobody waits any more: without this, asyncio would log it as never retrieved
