"""uvicorn's HTTP protocol, with a short way for the two requests that matter.

The ASGI layer (a scope, a task and an event per request, headers as a list of messages) costs more than parsing,
validating and producing together. So `POST /v1/notifications` and `:batch` are answered here, where uvicorn has just
parsed them, when they look like what a client library sends. Everything else goes uvicorn's way, to FastAPI, as if this
class were not there: other paths, HTTP/1.0, chunked bodies, `Expect`, WebSockets, pipelined requests, repeated headers,
bodies too large, and recipients that have to be looked up. Handing over is always right; it is only slower.

An own server was refused: TLS, WebSocket upgrades, flow control and shutdown are uvicorn's. Deadlines are swept twice a
second over all connections instead of armed per request; a timer costs as much as validating a notification.

    reading: idle ──first byte──► head ──► body ──► idle        (what uvicorn answers: head ──► handed over ──► idle)
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from tocsin_ingestion.answers import Answer, build_accepted, build_refusal
from tocsin_ingestion.auth.gate import GRANT
from tocsin_ingestion.body import BODY_TIMEOUT_SECONDS, MAX_LENGTH_DIGITS, body_timeout
from tocsin_ingestion.exchange import BatchExchange, Exchange, Parts, SingleExchange
from tocsin_ingestion.farewell import Farewell
from tocsin_ingestion.plain_http import PlainProtocol
from tocsin_ingestion.problems import HEAD_TIMEOUT, HEAD_TOO_LARGE, Problem
from tocsin_ingestion.rendering import CLOSE, Written, write
from tocsin_ingestion.sent import Accepted

KEEP_ALIVE_SECONDS = 75
"""Longer than the idle timeout of common load balancers (60 s), so that they close first."""
HEAD_TIMEOUT_SECONDS = 15.0
CLOSE_SECONDS = 30.0
"""How long a client may take to read its last answers before the connection is cut."""
MAX_HEAD_BYTES = 65_536
"""How much of a head, or of what stands beside a chunked body, may have arrived and be incomplete."""
_EXCHANGES: dict[bytes, type[Exchange]] = {
    b"/v1/notifications": SingleExchange,
    b"/v1/notifications:batch": BatchExchange,
}
_READ = frozenset(
    {b"content-type", b"content-length", b"idempotency-key", b"traceparent", b"authorization", b"x-api-key"}
)
_UNUSUAL = frozenset({b"expect", b"transfer-encoding", b"upgrade"})


class Phase(Enum):
    """What a connection is to read next. HANDED_OVER: the rest of a request that uvicorn answers."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    HANDED_OVER = auto()


# Looked up on every request; an Enum's own lookup costs as much as a method call.
_IDLE, _HEAD, _BODY, _HANDED_OVER = Phase


class HotPathProtocol(PlainProtocol):
    """One connection. `bind` gives the class what it needs; uvicorn makes the instances."""

    parts: Parts
    written: Written

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._incoming: Exchange | None = None  # whose body is being read
        self._answering: Exchange | None = None
        self._cycle_before: Any = None  # the one that a pipelined cycle waits for
        self._body: list[bytes] = []
        self._body_bytes = 0  # for which there is room
        self._head_bytes: int | None = None
        self._is_closing = False
        self._phase = _IDLE
        self._since = self._asked_at = self._now = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the connection held."""
        super().connection_lost(exc)
        self._release_body()

    def data_received(self, data: bytes) -> None:
        """Take what arrived, and end a request whose headers, or trailers, do not end."""
        self._now = self.loop.time()  # once for all that one read brings about
        super().data_received(data)
        if self._phase is _IDLE or self._phase is _BODY:
            return
        # The read that a head began in, or that brought a part of a body, may hold other things too: it does not count.
        self._head_bytes = 0 if self._head_bytes is None else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            detail = f"Headers or trailers were not complete after {MAX_HEAD_BYTES} bytes"
            self._end(Problem(HEAD_TOO_LARGE, detail))

    def on_message_begin(self) -> None:
        """Begin a request. What uvicorn prepares for its cycle waits until it is known to be needed."""
        self.url = b""
        self.headers = []
        self._incoming = None
        self._head_bytes = None
        self._phase, self._since = _HEAD, self._now

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers, of which there may be any number, are read over."""
        if self._phase is _HEAD:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take the request, or hand it over."""
        kind = _EXCHANGES.get(self.url)
        fields = None if kind is None else self._read_usual(kind.max_body_bytes)
        if self._is_closing:
            self._ignore()
        elif kind is None or fields is None:
            self._hand_over()
        else:
            self._take(kind(self.parts, fields, self._reply, keep_alive=self.parser.should_keep_alive()))

    def on_body(self, body: bytes) -> None:
        """Collect the body; its declared length was checked, and the parser takes no more than that."""
        exchange = self._incoming
        if exchange is None:
            self._head_bytes = None
            super().on_body(body)
        elif not exchange.response_complete:
            self._keep_body(exchange, body)

    def on_message_complete(self) -> None:
        """Begin to answer."""
        exchange = self._incoming
        self._phase, self._since = _IDLE, self._now
        if exchange is None:
            super().on_message_complete()
            return
        self._incoming = None
        if exchange.response_complete:  # it was refused before its body was here
            if self._is_closing:
                self.transport.close()
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._release_body()
        self._answering, self._asked_at = exchange, self._now
        if not exchange.begin(body):
            self._hand_over_taken(exchange)
            super().on_body(body)
            super().on_message_complete()
            self._phase = _IDLE

    def on_response_complete(self) -> None:
        """Go on with the next request, unless the connection ends here."""
        if self._is_closing:
            self.server_state.total_requests += 1
            return
        if self._phase is not _HEAD:  # else the next request has begun to arrive
            self._since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, as uvicorn would where nothing is in front of it."""
        self._end_with(Answer(HTTPStatus.BAD_REQUEST, [("content-type", "text/plain; charset=utf-8")], msg.encode()))

    def handle_websocket_upgrade(self) -> None:
        """Let uvicorn's WebSocket protocol go on, unless the connection ends before."""
        if not self._is_closing:
            super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """Close the connection: at once, or with the answer that is still to be given."""
        if self._is_free:
            self.close()
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing happens."""
        self.close()

    def check_deadline(self, now: float) -> None:
        """End what has waited too long. `now` is the loop's time."""
        waited_seconds = now - self._since
        if self.is_closing():
            if waited_seconds > CLOSE_SECONDS:
                self.transport.abort()
        elif self._answering is not None:
            if now - self._asked_at > self.parts.acceptor.patience_seconds:
                self._answering.end()
        elif not self._is_free:  # the routes have their own deadlines
            if self._incoming is not None and waited_seconds > BODY_TIMEOUT_SECONDS:
                self._refuse_incoming(self._incoming, body_timeout())
        elif self._phase is _HEAD:
            if waited_seconds > HEAD_TIMEOUT_SECONDS:
                detail = f"The headers were not complete after {HEAD_TIMEOUT_SECONDS:g} seconds"
                self._end(Problem(HEAD_TIMEOUT, detail))
        elif waited_seconds > KEEP_ALIVE_SECONDS:
            self.close()

    # To uvicorn's cycles this is their transport, so that their connections end as those of the exchanges do.

    def write(self, data: bytes) -> None:
        """Write, unless the last word was said."""
        if not self._is_closing:
            self.transport.write(data)

    def is_closing(self) -> bool:
        """Return whether nothing more is answered on this connection."""
        return self._is_closing or self.transport.is_closing()

    def close(self) -> None:
        """Close the connection behind what was written, so that a client which is still sending can read it."""
        if self.is_closing():
            return
        self._is_closing, self._since = True, self.loop.time()
        if self._phase is _IDLE and not self.flow.read_paused:
            self.transport.close()
        else:
            self.flow.resume_reading()
            Farewell(self, self.transport, self.loop).begin()

    @property
    def _is_free(self) -> bool:
        # uvicorn's type does not say that it is None before the first request.
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]

    def _take(self, exchange: Exchange) -> None:
        """Begin to read the body of a caller who may send one."""
        self._incoming = self.cycle = exchange  # type: ignore[assignment]  # to uvicorn it is its cycle
        self._phase, self._since = _BODY, self._now
        gate = self.parts.gate
        if gate is not None and not exchange.enter(gate):
            self._hand_over_taken(exchange)

    def _ignore(self) -> None:
        """Read over a request behind the last one that this connection answers."""
        self._incoming = Exchange(self.parts, {}, self._reply, keep_alive=False)
        self._incoming.response_complete = True
        self._phase = _BODY

    def _keep_body(self, exchange: Exchange, body: bytes) -> None:
        """Keep a part of a body if there is room for it: what was only declared takes none."""
        try:
            self.parts.acceptor.admission.hold(len(body))
        except Problem as problem:
            self._refuse_incoming(exchange, problem)
        else:
            self._body.append(body)
            self._body_bytes += len(body)

    def _refuse_incoming(self, exchange: Exchange, problem: Problem) -> None:
        self._release_body()
        exchange.refuse(problem)

    def _release_body(self) -> None:
        self._body.clear()
        self.parts.acceptor.admission.release(self._body_bytes)
        self._body_bytes = 0

    def _read_usual(self, max_body_bytes: int) -> dict[bytes, bytes] | None:
        """Return the headers by name, or None for a request that uvicorn had better see."""
        headers, parser = self.headers, self.parser
        fields = dict(headers)
        length = fields.get(b"content-length", b"")
        is_usual = (
            length.isdigit()
            and len(length) <= MAX_LENGTH_DIGITS
            and int(length) <= max_body_bytes
            and _UNUSUAL.isdisjoint(fields)
            and (len(fields) == len(headers) or not _is_any_repeated(headers))
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and self._is_free
            and not self.flow.write_paused
        )
        return fields if is_usual else None

    def _hand_over(self) -> None:
        """Let uvicorn do what it would have done from the first byte on."""
        url, headers = self.url, self.headers
        self._incoming = None
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        cycle_before = self.cycle
        super().on_headers_complete()
        self._phase = _HANDED_OVER
        if self.cycle is not cycle_before:
            self.cycle.transport = self  # type: ignore[assignment]  # all of it that a cycle uses
            self._cycle_before = cycle_before if self.pipeline else None

    def _hand_over_taken(self, exchange: Exchange) -> None:
        """Hand over a request that was begun here, with what its caller was granted."""
        self._answering = self.cycle = None  # type: ignore[assignment]  # nothing is in front of it
        self._hand_over()
        if exchange.grant is not None:
            self.scope["state"][GRANT] = exchange.grant

    def _reply(self, exchange: Exchange, answer: Answer | Accepted) -> None:
        is_kept = exchange.keep_alive and CLOSE not in self.server_state.default_headers
        if not self.transport.is_closing():
            more = b"" if exchange.grant is None else exchange.grant.write_headers()
            self.transport.write(self._write(answer, more, is_kept=is_kept))
            if not is_kept:
                self.close()
        self._answering = None
        if self._phase is not _HEAD:  # else the next request has begun to arrive
            self._since = self.loop.time()
        if self.pipeline or self.flow.read_paused:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def _write(self, answer: Answer | Accepted, more: bytes, *, is_kept: bool) -> bytes:
        defaults = self.server_state.default_headers
        if isinstance(answer, Accepted):
            if is_kept:
                return self.written.write_accepted(answer.id, defaults, more)
            answer = build_accepted(answer)
        return write(answer, defaults, more, is_kept=is_kept)

    def _end(self, problem: Problem) -> None:
        """Refuse what does not come to its end, and close the connection."""
        if self._end_with(build_refusal(problem, None)):
            self.parts.reporter.report([problem], None)

    def _end_with(self, answer: Answer) -> bool:
        """Close the connection behind this answer to what cannot be read on, and return whether it was given.

        It is not where the request has its answer already, nor behind one that waits for its own: with that, the
        connection ends.
        """
        cycle = self.cycle
        is_within = self._phase is _HANDED_OVER and not self.pipeline  # in the midst of the request that is answered
        if not is_within and not self._is_free:
            self._end_after_answer()
            return False
        is_told = not self.is_closing() and not (is_within and cycle.response_started)
        if is_told:
            self.transport.write(write(answer, self.server_state.default_headers, is_kept=False))
        if is_within:  # its route learns that there is no more to read, and nobody to answer
            cycle.disconnected = True
            cycle.message_event.set()
        self.close()
        return is_told

    def _end_after_answer(self) -> None:
        if self._phase is _HANDED_OVER:  # what waits behind the request that is answered will never be complete
            self.pipeline.popleft()
            self.cycle, self._phase = self._cycle_before, _HEAD
        self.cycle.keep_alive = False
        self.flow.pause_reading()


def _is_any_repeated(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a header that is read here was sent twice."""
    names = [name for name, _ in headers]
    return any(names.count(name) > 1 for name in _READ)


def bind_protocol(parts: Parts) -> type[HotPathProtocol]:
    """Return the protocol class whose connections accept with these parts."""
    return type("BoundHotPathProtocol", (HotPathProtocol,), {"parts": parts, "written": Written()})
