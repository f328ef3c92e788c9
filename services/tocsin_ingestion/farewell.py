"""The end of a connection whose client may still be sending.

A socket that is closed with unread input resets its connection, and takes even that from the client which it had not
read yet: the answer that says why. So only our side ends, what still comes is read over, and the socket closes when the
client closes it, or has been silent for a while (RFC 9112, section 9.6). TLS has no half of a connection to end; there
`Connection: close` has to do. Reading over with the HTTP parser was refused: a header without end would grow on in it.

The timer is one per farewell, and those are rare; so that they end without sweeps, which a draining server makes none.
"""

from __future__ import annotations

import asyncio
import contextlib

LINGER_SECONDS = 2.0
"""How long a client may be silent before its socket is closed."""


class Farewell(asyncio.Protocol):
    """Takes a protocol's place on its transport, and tells it when the connection is lost."""

    def __init__(
        self, protocol: asyncio.Protocol, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._protocol = protocol
        self._transport = transport
        self._loop = loop
        self._has_heard = False
        self._timer = loop.call_later(LINGER_SECONDS, self._look)

    def begin(self) -> None:
        """End our side of the connection behind what was written."""
        self._transport.set_protocol(self)
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # it is gone, and we shall hear of that
                self._transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Read over what still comes."""
        del data
        self._has_heard = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whose connection it was."""
        self._timer.cancel()
        self._protocol.connection_lost(exc)

    def _look(self) -> None:
        if self._has_heard:
            self._has_heard = False
            self._timer = self._loop.call_later(LINGER_SECONDS, self._look)
        else:
            self._transport.close()
