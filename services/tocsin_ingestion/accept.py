"""From a valid draft to a stored notification: the one way in, whatever carried the request.

Users first, then the id, then encode, send, await. Knows no HTTP and no framework, so that the routes and the hot path
share it: the routes await `accept`; the hot path, which has no task to await in, calls `try_send` and later `conclude`.
Nothing here waits for Kafka on the event loop: `send` refuses at once or returns a record on its way, which is awaited
with a deadline, so that a broken producer cannot keep a client forever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, Protocol

from tocsin_core.codec import Headers, build_shared_headers, encode_beside
from tocsin_core.errors import KafkaFailure, MessageError, OutcomeUnknown
from tocsin_core.message import MAX_BODY_BYTES
from tocsin_core.outgoing import Outgoing, Stored, wait_until_settled
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
)
from tocsin_ingestion.recipients import find_refusals
from tocsin_ingestion.sent import Accepted, Sent, find_records, judge

GRACE_SECONDS = 2.0
"""How much longer than the producer's own deadline an answer may take before it is given without the producer."""


class Sink(Load, Protocol):
    """What `RecordProducer` offers, as far as ingestion needs it."""

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers) -> Outgoing:
        """Enqueue a record; raise KafkaFailure at once, or settle the record with one."""
        ...

    def send_all(self, topic: str, contents: Sequence[tuple[bytes, bytes, Headers]]) -> list[Outgoing]:
        """Enqueue records as `send` does one, or, when it raises, none of them."""
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
        await wait_until_settled(find_records([sent]), timeout_seconds=self.patience_seconds)
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
        await wait_until_settled(find_records(sents), timeout_seconds=self.patience_seconds)
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
        sound = [draft for draft in drafts if isinstance(draft, Draft)]
        user_ids = {draft.from_id for draft in sound} | {draft.to_id for draft in sound}  # each is asked once
        if self._directory.knows_all([*map(str, user_ids)]):
            return self._send_all(drafts, self._build_headers(traceparent, now), key, {})
        return None

    def conclude(self, sent: Sent) -> Accepted:
        """Return how a send ended. Raise Problem if it failed, or if nobody knows yet: then nobody waits any more."""
        outcome = judge(sent)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    def conclude_all(self, sents: Sequence[Sent | Problem]) -> list[Accepted | Problem]:
        """Return how each send ended."""
        return [judge(sent) if isinstance(sent, Sent) else sent for sent in sents]

    def _knows_users_of(self, draft: Draft) -> bool:
        return self._directory.knows_all((str(draft.from_id), str(draft.to_id)))

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
        if key is None and not refusals and obstacle is None:
            together = self._send_together(drafts, headers)
            if together is not None:
                return together
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

    def _send_together(self, drafts: Sequence[Draft | Problem], headers: Headers) -> list[Sent | Problem] | None:
        """Send a batch in which nothing is wrong and for which there is room, as nearly all are: half the cost.

        None, and nothing sent, if any item has to be looked at alone.
        """
        sound = [draft for draft in drafts if isinstance(draft, Draft)]
        if len(sound) < len(drafts):
            return None
        notifications = [draft.build_notification(make_id(self._target.tenant)) for draft in sound]
        try:
            contents = [encode_beside(headers, notification) for notification in notifications]
            largest_bytes = max((len(value) for _, value, _ in contents), default=0)
            if largest_bytes > MAX_BODY_BYTES or not self.admission.has_room_for(len(contents), largest_bytes):
                return None
            records = self._sink.send_all(self._topic, contents)
        except (MessageError, KafkaFailure):
            return None
        return [Sent(each.id, record, False) for each, record in zip(notifications, records, strict=True)]

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
            record = self._produce(draft, notification_id, headers, refusal, has_key=True)
        except BaseException:
            self._keys.release(notification_id)
            raise
        # Settled by the record itself, so that a client who hangs up before the answer changes nothing.
        record.call_when_settled(partial(self._settle, notification_id))
        return Sent(notification_id, record, has_key=True)

    def _produce(
        self,
        draft: Draft,
        notification_id: str,
        headers: Headers,
        refusal: Problem | None,
        *,
        has_key: bool = False,
    ) -> Outgoing:
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

    def _settle(self, notification_id: str, record: Outgoing) -> None:
        is_stored = isinstance(record.outcome, Stored)
        if is_stored or isinstance(record.outcome, OutcomeUnknown):
            self._keys.settle(notification_id, is_stored=is_stored, now=self._clock())
        else:
            self._keys.release(notification_id)
