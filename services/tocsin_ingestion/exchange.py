"""One request on the hot path, from its complete body to its answer: what uvicorn's cycle and task are elsewhere.

There is no task: the end of a send calls back. uvicorn finds in an exchange what it looks for in its own cycle
(`response_complete`, `keep_alive`, `disconnected`, `message_event`), so that its shutdown and its queue of pipelined
requests work as if this were one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from tocsin_core.codec import TRACE_ID, make_traceparent
from tocsin_core.message import MAX_BODY_BYTES
from tocsin_core.outgoing import call_when_all_settled
from tocsin_ingestion.accept import Acceptor
from tocsin_ingestion.answers import Answer, build_accepted, build_batch, build_refusal
from tocsin_ingestion.auth.gate import Gate, Grant
from tocsin_ingestion.draft import Rules
from tocsin_ingestion.identity import read_key
from tocsin_ingestion.problems import Problem, internal
from tocsin_ingestion.report import Reporter
from tocsin_ingestion.sent import Accepted, Sent, find_records
from tocsin_ingestion.validation import MAX_BATCH_BYTES, parse_batch, parse_notification

Reply = Callable[["Exchange", Answer | Accepted], None]
Fields = Mapping[bytes, bytes]
_NOBODY = asyncio.Event()
"""uvicorn wakes a cycle's reader when the connection is lost; nobody reads here."""

_log = structlog.get_logger(__name__)


class Parts(NamedTuple):
    """What accepting takes; the routes have the same."""

    acceptor: Acceptor
    rules: Rules
    reporter: Reporter
    gate: Gate | None = None
    """None: whoever reaches the API may post."""


class Exchange:
    """What both kinds share: refusing, failing, and being answered once."""

    __slots__ = ("_reply", "disconnected", "fields", "grant", "keep_alive", "parts", "response_complete", "traceparent")
    max_body_bytes = MAX_BODY_BYTES
    message_event = _NOBODY

    def __init__(self, parts: Parts, fields: Fields, reply: Reply, *, keep_alive: bool) -> None:
        self.parts = parts
        self.fields = fields
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.grant: Grant | None = None
        incoming = fields.get(b"traceparent")
        self.traceparent = make_traceparent(incoming.decode("latin-1") if incoming else None)
        self._reply = reply

    def enter(self, gate: Gate) -> bool:
        """Let the caller in, or refuse. False, and nothing done, if that has to be waited for."""
        try:
            self.grant = gate.try_enter(self.fields.get(b"authorization"), self.fields.get(b"x-api-key"))
            if self.grant is None:
                return False
            self.grant.claim_first()
        except Exception as error:  # noqa: BLE001 - the top of every request, as below
            self._fail(error)
        return True

    def begin(self, body: bytes) -> bool:
        """Send what the body holds and arrange for the answer. False, and nothing done, if it is one for the routes."""
        try:
            return self._begin(body)
        except Exception as error:  # noqa: BLE001 - the top of every request, as below
            self._fail(error)
        return True

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem, unless there was an answer."""
        if not self.response_complete:
            self.parts.reporter.report([problem], self._trace_id)
            self._answer(build_refusal(problem, self._trace_id))

    def end(self, _done: object = None) -> None:
        """Answer with how it ended, known or not, unless there was an answer."""
        if not self.response_complete:
            try:
                self._answer(self._conclude())
            except Exception as error:  # noqa: BLE001 - the top of every request, as below
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Answer with what went wrong; what nobody expected is logged, with its trace id."""
        if isinstance(error, Problem):
            self.refuse(error)
            return
        _log.error("request failed", exc_info=error, trace_id=self._trace_id)
        if not self.response_complete:
            self._answer(build_refusal(internal(), self._trace_id))

    def _begin(self, body: bytes) -> bool:
        raise NotImplementedError

    def _conclude(self) -> Answer | Accepted:
        raise NotImplementedError

    def _answer(self, answer: Answer | Accepted) -> None:
        self.response_complete = True
        self._reply(self, answer)

    @property
    def _trace_id(self) -> str:
        return self.traceparent[TRACE_ID]

    def _read_key(self) -> str | None:
        key = self.fields.get(b"idempotency-key")
        return None if key is None else read_key([key.decode("latin-1")])

    def _read_content_type(self) -> str | None:
        value = self.fields.get(b"content-type")
        return None if value is None else value.decode("latin-1")


class SingleExchange(Exchange):
    """`POST /v1/notifications`."""

    __slots__ = ("_sent",)
    _sent: Sent

    def _begin(self, body: bytes) -> bool:
        key = self._read_key()
        parts, now = self.parts, datetime.now(UTC)
        draft = parse_notification(body, self._read_content_type(), rules=parts.rules, now=now)
        sent = parts.acceptor.try_send(draft, traceparent=self.traceparent, key=key, now=now)
        if sent is None:
            return False
        self._sent = sent
        if sent.record is None:
            self.end()
        else:
            sent.record.call_when_settled(self.end)
        return True

    def _conclude(self) -> Answer | Accepted:
        accepted = self.parts.acceptor.conclude(self._sent)
        self.parts.reporter.report((accepted,), self._trace_id)
        return build_accepted(accepted) if accepted.is_replay else accepted


class BatchExchange(Exchange):
    """`POST /v1/notifications:batch`."""

    __slots__ = ("_sents",)
    max_body_bytes = MAX_BATCH_BYTES
    _sents: list[Sent | Problem]

    def _begin(self, body: bytes) -> bool:
        key = self._read_key()
        parts, now = self.parts, datetime.now(UTC)
        drafts = parse_batch(body, self._read_content_type(), rules=parts.rules, now=now)
        if self.grant is not None:
            drafts = self.grant.limit(drafts)
        sents = parts.acceptor.try_send_all(drafts, traceparent=self.traceparent, key=key, now=now)
        if sents is None:
            return False
        self._sents = sents
        call_when_all_settled(find_records(sents), self.end)
        return True

    def _conclude(self) -> Answer:
        outcomes = self.parts.acceptor.conclude_all(self._sents)
        self.parts.reporter.report(outcomes, self._trace_id)
        return build_batch(outcomes)
