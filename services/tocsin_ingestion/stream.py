"""`GET /v1/stream?user=ID`: a WebSocket on which a person's notifications arrive, one JSON text frame each.

    client ─► may it? ─► registered, so that consumers find it ─► accepted ─► frames … ─► closed, with a code

The handshake is answered once the registry has the connection: whoever sees it open can be reached. A refusal is
accepted first and closed with a code at once, because that is all a browser lets a page see. Frames from the client
are read and dropped. The user is who the address says; who may listen as that user is the gate's question: everybody
with `auth.mode` None, a holder of an API key, or the user's own token, for as long as that is valid. A page cannot set
headers on a WebSocket, so it offers its credential as a subprotocol beside `tocsin`: addresses end up in logs.
What a browser's same-origin rule does not do for WebSockets is done here: a page of another origin is refused unless it
is listed, or any page that somebody inside opens could listen for the whole internet.

Close codes: 1012 the instance is going away, 1013 try again later, 4400 the address names no user, 4401 the credential
is missing, wrong, expired or revoked, 4403 the page's origin or the credential is not allowed, 4404 no such user, 4408
the client reads too slowly, 4429 too many connections of this user. After 1012, 1013, 4408 and a lost connection,
clients connect again with a growing, random pause; after the others not.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tocsin_core.complaints import Complaints
from tocsin_core.errors import TocsinError
from tocsin_core.logging import get_logger
from tocsin_core.message import MAX_ID_CHARACTERS
from tocsin_core.settings import Settings, StreamSettings
from tocsin_core.users import DirectoryUnavailable, UserDirectory
from tocsin_ingestion import metrics
from tocsin_ingestion.answers import build_refusal
from tocsin_ingestion.auth.credentials import read_credentials
from tocsin_ingestion.auth.gate import Caller, Gate
from tocsin_ingestion.hub import Hub, HubUnavailable
from tocsin_ingestion.problems import AUTH_UNAVAILABLE, UPGRADE_REQUIRED, Problem
from tocsin_ingestion.sockets import GONE, RESTART, Close, Connection, Send, Sockets
from tocsin_ingestion.wire import ABORT

PATH = "/v1/stream"
GOODBYE_SECONDS = 1.0
ANY_ORIGIN = "*"
PROTOCOL = "tocsin"
BEARER_PROTOCOL = "bearer."
"""A page writes `new WebSocket(address, ["tocsin", "bearer." + token])`; it is never chosen, so never sent back."""
MAX_TIMER_SECONDS = 30 * 86_400.0
"""Beyond what the loop's timers are made for; no stream lasts so long."""
LATER = 1013

MALFORMED = Close(4400, f"write {PATH}?user=ID")
UNAUTHENTICATED = Close(4401, "credentials are missing or wrong")
REVOKED = Close(4401, "the credential was revoked; connect with another one")
EXPIRED = Close(4401, "the credential has expired; connect with a new one")
FOREIGN_USER = Close(4403, "this token is another user's")
FOREIGN_PAGE = Close(4403, "pages of this origin may not listen")
UNKNOWN_USER = Close(4404, "no such user")
TOO_MANY = Close(4429, "this user has too many connections here; close one")
FULL = Close(LATER, "this instance has too many connections; another may have room")
DIRECTORY_AWAY = Close(LATER, "users cannot be looked up at present; try again later")
GATE_AWAY = Close(LATER, "credentials cannot be checked at present; try again later")
REGISTRY_AWAY = Close(LATER, "connections cannot be registered at present; try again later")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_log = get_logger(__name__)


class Refused(TocsinError):
    """This connection is closed again at once."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.reason)
        self.close = close


class Streams:
    """The ASGI application behind the path: one call per connection, for as long as it lasts."""

    def __init__(
        self,
        directory: UserDirectory,
        hub: Hub,
        sockets: Sockets,
        settings: StreamSettings,
        gate: Gate | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._gate = gate
        self._clock = clock
        self._directory = directory
        self._hub = hub
        self._sockets = sockets
        self._settings = settings
        self._complaints = Complaints(_log.warning)
        self._callers: dict[Connection, Caller] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it ends, and tell a request that is none what to be."""
        if scope["type"] != "websocket":
            await _answer_request(send)
            return
        await receive()  # websocket.connect
        try:
            connection = await self._admit(scope)
        except Refused as refused:
            metrics.STREAMS_CLOSED.labels(refused.close.code).inc()
            await _accept(scope, send)
            await _say_goodbye(refused.close, scope, send)
            return
        metrics.STREAMS_OPEN.inc()
        try:
            await _accept(scope, send)
            close = await self._serve(connection, receive, send)
            metrics.STREAMS_CLOSED.labels(close.code).inc()
            await _say_goodbye(close, scope, send)
        finally:
            metrics.STREAMS_OPEN.dec()
            self._part(connection)

    def start(self) -> None:
        """Begin to be found by consumers; returns at once, whether the store is there or not."""
        self._hub.start()

    async def close(self) -> None:
        """Leave the hub."""
        await self._hub.close()

    def close_revoked(self) -> None:
        """Close the connections of callers whose key is gone. To be called again and again: it may go at any moment."""
        if self._gate is None:
            return
        for connection, caller in self._callers.items():
            if not self._gate.checker.still_knows(caller):
                connection.close(REVOKED)

    async def drain(self, seconds: float) -> None:
        """Refuse new connections and close the others with 1012, at random moments within so many seconds.

        All at once, they would all be back at the remaining pods in the same instant.
        """
        self._sockets.is_leaving = True
        connections = self._sockets.connections
        loop = asyncio.get_running_loop()
        for connection in connections:
            loop.call_later(random.uniform(0, seconds), connection.close, RESTART)  # noqa: S311 - jitter
        if connections:
            await asyncio.sleep(seconds)

    async def _admit(self, scope: Scope) -> Connection:
        self._check_origin(scope)
        user_id = parse_user(scope["query_string"])
        caller = await self._check_caller(scope, user_id)
        await self._check_user(user_id)
        if self._sockets.is_leaving:
            raise Refused(RESTART)
        if self._sockets.count >= self._settings.max_connections:
            raise Refused(FULL)
        if self._sockets.count_of(user_id) >= self._settings.max_connections_per_user:
            raise Refused(TOO_MANY)
        connection = await self._register(user_id)
        if caller is not None:
            self._callers[connection] = caller
        return connection

    async def _register(self, user_id: str) -> Connection:
        connection = Connection(user_id)
        self._sockets.add(connection)
        try:
            await self._hub.register(user_id)
        except HubUnavailable as unavailable:
            self._part(connection)
            self._complaints.about("a client was sent away", str(unavailable))
            raise Refused(REGISTRY_AWAY) from unavailable
        except BaseException:
            self._part(connection)
            raise
        return connection

    def _check_origin(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        if origin is None or is_allowed(origin.decode("latin-1"), host.decode("latin-1"), self._settings):
            return
        advice = "list the page's origin in spec.ingestion.stream.allowedOrigins"
        self._complaints.about("a page was refused", origin.decode("latin-1")[:256], advice=advice)
        raise Refused(FOREIGN_PAGE)

    async def _check_caller(self, scope: Scope, user_id: str) -> Caller | None:
        """Return who it is that may listen as this user, None where nobody is asked."""
        if self._gate is None:
            return None
        try:
            caller = await self._gate.checker.identify(*read_offer(scope))
        except Problem as problem:
            raise Refused(GATE_AWAY if problem.kind is AUTH_UNAVAILABLE else UNAUTHENTICATED) from problem
        if caller.listens_as not in (None, user_id):
            raise Refused(FOREIGN_USER)
        return caller

    async def _check_user(self, user_id: str) -> None:
        try:
            if await self._directory.find(user_id) is None:
                raise Refused(UNKNOWN_USER)
        except DirectoryUnavailable as unavailable:  # the directory itself logged why
            raise Refused(DIRECTORY_AWAY) from unavailable

    async def _serve(self, connection: Connection, receive: Receive, send: Send) -> Close:
        reading = asyncio.create_task(_read(connection, receive))
        expiring = None
        caller = self._callers.get(connection)
        if caller is not None and caller.expires_at is not None:
            left_seconds = min(caller.expires_at - self._clock(), MAX_TIMER_SECONDS)
            expiring = asyncio.get_running_loop().call_later(left_seconds, connection.close, EXPIRED)
        try:
            return await connection.write(send)
        finally:
            reading.cancel()
            if expiring is not None:
                expiring.cancel()

    def _part(self, connection: Connection) -> None:
        self._callers.pop(connection, None)
        self._sockets.remove(connection)
        self._hub.forget(connection.user_id)


def build_streams(settings: Settings, directory: UserDirectory, gate: Gate | None = None) -> Streams | None:
    """Return the streams of a pipeline with a channel of type WebSocket, None for others."""
    if settings.redis is None or not settings.has_streams:
        return None
    sockets = Sockets()
    hub = Hub(settings.redis, sockets, pipeline=settings.pipeline_key)
    return Streams(directory, hub, sockets, settings.ingestion.stream, gate)


def parse_user(query: bytes) -> str:
    """Return the one user that a query string names. Raise Refused if it names none, or several."""
    try:
        values = parse_qs(query.decode("ascii"), keep_blank_values=True, errors="strict").get("user", [])
    except ValueError as error:
        raise Refused(MALFORMED) from error
    if len(values) != 1 or not 1 <= len(values[0]) <= MAX_ID_CHARACTERS:
        raise Refused(MALFORMED)
    return values[0]


def is_allowed(origin: str, host: str, settings: StreamSettings) -> bool:
    """Return whether a page of this origin may listen: the same host as ours, or one that is listed."""
    allowed = settings.allowed_origins
    if ANY_ORIGIN in allowed or origin in allowed:
        return True
    try:
        return urlsplit(origin).netloc == host
    except ValueError:  # no URL at all, such as "http://["
        return False


def read_offer(scope: Scope) -> tuple[bytes | None, bytes | None]:
    """Return the credentials of a handshake: those of a request, or else what a page offers as a subprotocol.

    Raise Problem (401) for credentials that were sent twice.
    """
    authorization, api_key = read_credentials(scope["headers"])
    offered = [each for each in scope["subprotocols"] if each.startswith(BEARER_PROTOCOL)]
    if authorization is None and api_key is None and len(offered) == 1:
        authorization = b"Bearer " + offered[0].removeprefix(BEARER_PROTOCOL).encode("latin-1", errors="replace")
    return authorization, api_key


async def _accept(scope: Scope, send: Send) -> None:
    """Accept, and choose the subprotocol that a page must see chosen if it offered any."""
    await send({"type": "websocket.accept", "subprotocol": PROTOCOL if PROTOCOL in scope["subprotocols"] else None})


async def _answer_request(send: Send) -> None:
    problem = Problem(UPGRADE_REQUIRED, f"Connect with a WebSocket client to {PATH}?user=ID")
    answer = build_refusal(problem, None)
    headers = [(b"upgrade", b"websocket"), *((name.encode(), value.encode()) for name, value in answer.headers)]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _read(connection: Connection, receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
    connection.close(GONE)


async def _say_goodbye(close: Close, scope: Mapping[str, Any], send: Send) -> None:
    if close is GONE:
        return
    try:
        async with asyncio.timeout(GOODBYE_SECONDS):
            await send({"type": "websocket.close", "code": close.code, "reason": close.reason})
    except TimeoutError:  # its socket takes nothing: closing politely would wait for it for ever
        scope["extensions"][ABORT]()
    except OSError:
        pass  # it left first
