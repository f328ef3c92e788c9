"""The open connections of this pod: who has one, and what still waits for its socket.

Each connection has a writer and a bounded buffer of its own, so a client that reads slowly, or not at all, holds up
nobody else: it is asked for at most half a second, then the consumer hears `stalled` and gives its slot to others;
and it is closed when its oldest frame has waited for STALL_SECONDS, or its buffer is full. A frame is taken when the
connection has handed it to a transport that is not behind; of one user's connections, the first that takes it counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple

from tocsin_core.hub import Taken

STALLED_AFTER_SECONDS = 0.5
STALL_SECONDS = 5.0
BUFFER_BYTES = 1_048_576

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Close(NamedTuple):
    """How a connection ends: a WebSocket close code and, in at most 123 bytes, why."""

    code: int
    reason: str


GONE = Close(1006, "the client left")
RESTART = Close(1012, "this instance is going away; connect again")
SLOW = Close(4408, "the client reads too slowly; connect again")


class Offer:
    """One frame on its way to a user's connections, and the one answer that comes of it."""

    __slots__ = ("_answer", "_left", "_timer")

    def __init__(self, answer: Callable[[Taken], None], connections: int) -> None:
        self._answer: Callable[[Taken], None] | None = answer
        self._left = connections
        self._timer = asyncio.get_running_loop().call_later(STALLED_AFTER_SECONDS, self._end, Taken.STALLED)

    def take(self) -> None:
        """Note that a socket took it."""
        self._end(Taken.TAKEN)

    def lose(self) -> None:
        """Note that a connection ended before its socket took it."""
        self._left -= 1
        if self._left == 0:
            self._end(Taken.STALLED)

    def _end(self, taken: Taken) -> None:
        answer, self._answer = self._answer, None
        self._timer.cancel()
        if answer is not None:
            answer(taken)


class Connection:
    """One WebSocket: frames go in by `offer`, and `write` brings them to the socket until the connection ends."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self._waiting: dict[bytes, list[Offer]] = {}
        self._waiting_bytes = 0
        self._end: Close | None = None
        self._wake = asyncio.Event()

    def offer(self, frame: bytes, offer: Offer) -> None:
        """Put a frame into the buffer; one that waits there already, sent again, is not put in twice."""
        if self._end is not None:
            offer.lose()
        elif frame in self._waiting:
            self._waiting[frame].append(offer)
        elif self._waiting and self._waiting_bytes + len(frame) > BUFFER_BYTES:
            offer.lose()
            self.close(SLOW)
        else:
            self._waiting[frame] = [offer]
            self._waiting_bytes += len(frame)
            self._wake.set()

    def close(self, close: Close) -> None:
        """End the connection; the first reason stands."""
        self._end = self._end or close
        self._wake.set()

    async def write(self, send: Send) -> Close:
        """Write until the connection ends, and return why it did."""
        while self._end is None:
            if self._waiting:
                await self._write_first(send)
            else:
                self._wake.clear()
                await self._wake.wait()
        for offers in self._waiting.values():
            for offer in offers:
                offer.lose()
        self._waiting.clear()
        return self._end

    async def _write_first(self, send: Send) -> None:
        frame = next(iter(self._waiting))
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await send({"type": "websocket.send", "text": frame.decode()})
        except TimeoutError:
            self.close(SLOW)
        except OSError:  # what uvicorn raises when the client has left
            self.close(GONE)
        else:
            self._waiting_bytes -= len(frame)
            for offer in self._waiting.pop(frame):
                offer.take()


class Sockets:
    """All connections of this pod, by user."""

    def __init__(self) -> None:
        self._by_user: dict[str, set[Connection]] = {}
        self.count = 0
        self.is_leaving = False
        """Set while the pod drains: a user who is not here any more was perhaps here a moment ago."""

    @property
    def users(self) -> Iterable[str]:
        """Return who has a connection here."""
        return self._by_user.keys()

    @property
    def connections(self) -> list[Connection]:
        """Return all connections."""
        return [connection for connections in self._by_user.values() for connection in connections]

    def holds(self, user_id: str) -> bool:
        """Return whether this user has a connection here."""
        return user_id in self._by_user

    def count_of(self, user_id: str) -> int:
        """Return how many connections this user has here."""
        return len(self._by_user.get(user_id, ()))

    def add(self, connection: Connection) -> None:
        """Keep a connection."""
        self._by_user.setdefault(connection.user_id, set()).add(connection)
        self.count += 1

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        connections = self._by_user[connection.user_id]
        connections.remove(connection)
        self.count -= 1
        if not connections:
            del self._by_user[connection.user_id]

    def offer(self, user_id: str, frame: bytes, answer: Callable[[Taken], None]) -> None:
        """Offer a frame to all connections of a user; `answer` is called once, at the latest when the offer stalls."""
        connections = self._by_user.get(user_id)
        if not connections:
            answer(Taken.LEAVING if self.is_leaving else Taken.ABSENT)
            return
        offer = Offer(answer, len(connections))
        for connection in connections:
            connection.offer(frame, offer)
