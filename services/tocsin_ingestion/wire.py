"""uvicorn's WebSocket protocol, which lets the application cut a connection, and logs as our HTTP side does.

ASGI can only close politely: behind everything the peer has not read yet. A peer that reads nothing would keep its
socket and its buffer for ever, and uvicorn's pings end with the first attempt to close.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request

PING_SECONDS = 20.0
"""Between pings, and until a pong is missed: a peer that vanished is noticed within twice that."""
MAX_CLIENT_FRAME_BYTES = 4_096
"""Clients have nothing to say; a larger frame closes the connection with 1009."""
ABORT = "tocsin.abort"
"""The scope's extension with the callable that cuts the connection."""


class StreamProtocol(WebSocketsSansIOProtocol):
    """The protocol that `uvicorn.Config(ws=...)` takes."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = logging.getLogger("uvicorn.access")  # a line per connection is at debug, like one per request
        self.conn.debug = False  # it would log every handshake and frame: credentials, and what is for one person only

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake; the application starts with the next turn of the loop."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions[ABORT] = self.transport.abort

    def handle_ping(self) -> None:
        """Answer, unless the peer has not read what was sent before: pongs would pile up behind it without a bound."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.transport.abort()

    def keepalive_timeout(self) -> None:
        """Cut a connection whose peer does not answer: it would not read a farewell either."""
        super().keepalive_timeout()
        self.transport.abort()
