"""uvicorn's HTTP protocol, with a short way for the two requests that matter.

The ASGI layer (a scope, a task and an event per request, headers as a list of messages) costs more than parsing,
validating and producing together. So `POST /v1/notifications` and `:batch` are answered here, where uvicorn has just
parsed them, when they look like what a client library sends. Everything else goes uvicorn's way, to FastAPI, as if this
class were not there: other paths, HTTP/1.0, chunked bodies, `Expect`, upgrades, pipelined requests, repeated headers,
bodies too large, and recipients that have to be looked up. Handing over is always right; it is only slower.

An own server was refused: TLS, WebSocket upgrades, flow control and shutdown are uvicorn's. Deadlines are swept twice a
second over all connections instead of armed per request; a timer costs as much as validating a notification.

    reading: idle ──first byte──► head ──► body ──► idle        (what uvicorn answers: head ──► handed over)
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tocsin_ingestion.answers import Answer, build_accepted, build_refusal
from tocsin_ingestion.auth.gate import GRANT
from tocsin_ingestion.body import BODY_TIMEOUT_SECONDS, MAX_LENGTH_DIGITS, body_timeout
from tocsin_ingestion.exchange import BatchExchange, Exchange, Parts, SingleExchange
from tocsin_ingestion.problems import HEAD_TIMEOUT, HEAD_TOO_LARGE, Problem
from tocsin_ingestion.rendering import CLOSE, Written, write
from tocsin_ingestion.sent import Accepted

KEEP_ALIVE_SECONDS = 75
"""Longer than the idle timeout of common load balancers (60 s), so that they close first."""
HEAD_TIMEOUT_SECONDS = 15.0
MAX_HEAD_BYTES = 65_536
"""How much of a head may have arrived, and be incomplete."""
_EXCHANGES: dict[bytes, type[Exchange]] = {
    b"/v1/notifications": SingleExchange,
    b"/v1/notifications:batch": BatchExchange,
}
_READ = frozenset(
    {b"content-type", b"content-length", b"idempotency-key", b"traceparent", b"authorization", b"x-api-key"}
)
_UNUSUAL = frozenset({b"expect", b"transfer-encoding", b"upgrade"})


class Phase(Enum):
    """What a connection is to read next. HANDED_OVER: uvicorn and the routes have their own deadlines."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    HANDED_OVER = auto()


# Looked up on every request; an Enum's own lookup costs as much as a method call.
_IDLE, _HEAD, _BODY, _HANDED_OVER = Phase


class HotPathProtocol(HttpToolsProtocol):
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
        self._body: list[bytes] = []
        self._body_bytes = 0  # for which there is room
        self._head_bytes: int | None = None
        self._phase = _IDLE
        self._since = self._asked_at = self._now = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the connection held."""
        super().connection_lost(exc)
        self._release_body()

    def data_received(self, data: bytes) -> None:
        """Take what arrived, and end a request whose headers do not end."""
        self._now = self.loop.time()  # once for all that one read brings about
        super().data_received(data)
        if self._phase is not _HEAD:
            return
        # The read that a head began in may hold other requests before it, and does not count.
        self._head_bytes = 0 if self._head_bytes is None else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._end(Problem(HEAD_TOO_LARGE, f"The headers were not complete after {MAX_HEAD_BYTES} bytes"))

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
        if self.transport.is_closing():
            self._ignore()
        elif kind is None or fields is None:
            self._hand_over()
        else:
            self._take(kind(self.parts, fields, self._reply, keep_alive=self.parser.should_keep_alive()))

    def on_body(self, body: bytes) -> None:
        """Collect the body; its declared length was checked, and the parser takes no more than that."""
        if self._incoming is None:
            super().on_body(body)
        elif not self._incoming.response_complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Begin to answer."""
        exchange = self._incoming
        if exchange is None:
            super().on_message_complete()
            return
        self._incoming = None
        self._phase, self._since = _IDLE, self._now
        if exchange.response_complete:
            return  # it was refused before its body was here
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._release_body()
        self._answering, self._asked_at = exchange, self._now
        if not exchange.begin(body):
            self._hand_over_taken(exchange)
            super().on_body(body)
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; behind a request that is still being answered, end the connection with its answer.

        uvicorn writes its 400 at once, which the client would take for the answer to the request before.
        """
        if self._is_free or getattr(self.cycle, "more_body", False):  # no request before it, or within one itself
            super().send_400_response(msg)
        else:
            self._end_after_answer()

    def check_deadline(self, now: float) -> None:
        """End what has waited too long. `now` is the loop's time."""
        if self._answering is not None:
            if now - self._asked_at > self.parts.acceptor.patience_seconds:
                self._answering.end()
            return
        waited_seconds = now - self._since
        if self._phase is _IDLE and waited_seconds > KEEP_ALIVE_SECONDS:
            self.timeout_keep_alive_handler()
        elif self._phase is _HEAD and waited_seconds > HEAD_TIMEOUT_SECONDS and self._is_free:
            self._end(Problem(HEAD_TIMEOUT, f"The headers were not complete after {HEAD_TIMEOUT_SECONDS:g} seconds"))
        elif self._phase is _BODY and waited_seconds > BODY_TIMEOUT_SECONDS and self._incoming is not None:
            self._incoming.refuse(body_timeout())
            self._release_body()

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
        elif not exchange.response_complete:
            self._hold_body(exchange, int(exchange.fields[b"content-length"]))

    def _ignore(self) -> None:
        """Read over a request behind the last one that this connection answers."""
        self._incoming = Exchange(self.parts, {}, self._reply, keep_alive=False)
        self._incoming.response_complete = True

    def _hold_body(self, exchange: Exchange, body_bytes: int) -> None:
        try:
            self.parts.acceptor.admission.hold(body_bytes)
        except Problem as problem:
            exchange.refuse(problem)
        else:
            self._body_bytes = body_bytes

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
        self._phase = _HANDED_OVER
        super().on_headers_complete()

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
                self.transport.close()
        self._answering = None
        if self._phase is _IDLE or self._phase is _BODY:  # else the next request has begun to arrive
            self._phase, self._since = _IDLE, self.loop.time()
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
        """Refuse what is no request yet, and close the connection."""
        if not self._is_free:
            self._end_after_answer()
        elif not self.transport.is_closing():
            self.parts.reporter.report([problem], None)
            self.transport.write(write(build_refusal(problem, None), self.server_state.default_headers, is_kept=False))
            self.transport.close()

    def _end_after_answer(self) -> None:
        self.cycle.keep_alive = False
        self.flow.pause_reading()


def _is_any_repeated(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a header that is read here was sent twice."""
    names = [name for name, _ in headers]
    return any(names.count(name) > 1 for name in _READ)


def bind_protocol(parts: Parts) -> type[HotPathProtocol]:
    """Return the protocol class whose connections accept with these parts."""
    return type("BoundHotPathProtocol", (HotPathProtocol,), {"parts": parts, "written": Written()})
