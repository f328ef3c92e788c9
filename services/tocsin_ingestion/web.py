"""uvicorn, with an ending in which no client loses an answer.

uvicorn's own shutdown closes idle connections at once, and a client that is just then writing its next request on one
of them sees a reset. So, after the listener closed, every connection may ask once more and is told `Connection: close`
in the answer; only those that stay silent for a while are closed from our side. Raising the keep-alive timeout or
retrying in clients was refused: both only make the race rarer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tocsin_core.errors import SettingsError
from tocsin_ingestion.protocol import KEEP_ALIVE_SECONDS, HotPathProtocol
from tocsin_ingestion.wire import MAX_CLIENT_FRAME_BYTES, PING_SECONDS, StreamProtocol

BACKLOG = 2_048
SILENCE_SECONDS = 1.0
"""How long a kept-alive connection may stay silent, after the listener closed, before it is closed from our side."""
SWEEP_TICKS = 5
"""Every how many of uvicorn's ticks (0.1 s each) the connections' deadlines are looked at."""
_TICK_SECONDS = 0.02

App = Callable[[Any, Any, Any], Awaitable[None]]


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raise SettingsError, naming the key, if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(f"ingestion.host, ingestion.port: cannot listen on {host}:{port}: {error}") from error


def build_config(
    app: App, protocol: type[HttpToolsProtocol], *, graceful_seconds: float, has_streams: bool = False
) -> uvicorn.Config:
    """Return how uvicorn runs: our protocol, WebSockets if there are any, no access log; loop and logs are ours.

    Frames are not compressed: a compressor costs every connection more memory than all the rest of it.
    """
    return uvicorn.Config(
        app,
        http=protocol,
        ws=StreamProtocol if has_streams else "none",
        ws_max_size=MAX_CLIENT_FRAME_BYTES,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(graceful_seconds)),
    )


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which leaves signals to its caller and lets every connection finish."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none: the process has one place for signals."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second, and end what the hot path has let wait too long."""
        if counter % SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in self._connections:
                if isinstance(connection, HotPathProtocol):
                    connection.check_deadline(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let every connection ask once more, then end as uvicorn does."""
        for server in self.servers:
            server.close()
        headers = self.server_state.default_headers
        self.server_state.default_headers = [*headers, (b"connection", b"close")]
        for connection in self._connections:
            if _is_busy(connection):
                connection.shutdown()  # answers, says `Connection: close`, then closes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_SECONDS):
                while self.server_state.connections:  # noqa: ASYNC110 - uvicorn's set of them has no event
                    await asyncio.sleep(_TICK_SECONDS)
        await super().shutdown(sockets)

    @property
    def _connections(self) -> list[HttpToolsProtocol]:
        connections = list(self.server_state.connections)  # WebSockets too: uvicorn itself ends those that are left
        return [each for each in connections if isinstance(each, HttpToolsProtocol)]


def _is_busy(connection: HttpToolsProtocol) -> bool:
    cycle = cast(
        "RequestResponseCycle | None", connection.cycle
    )  # None before the first request, whatever its type says
    return cycle is not None and not cycle.response_complete
