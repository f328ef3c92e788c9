"""Directories that tests hold in their hands: a source that answers when it is told to, and a real HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tocsin_core.directory.source import Answer
from tocsin_core.users import DirectoryUnavailable, Profile

ADA = Profile(id="2", name="Ada")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Knows 1 to 9; each attribute is what the next question meets."""

    name = "users.test"

    def __init__(self, *, max_ids: int = 3, max_questions: int = 2, timeout_seconds: float = 5.0) -> None:
        self.max_ids, self.max_questions, self.timeout_seconds = max_ids, max_questions, timeout_seconds
        self.asked: list[list[str]] = []
        self.failure: Exception | None = None
        self.answers: dict[str, Answer] = {
            str(number): Profile(id=str(number), name=f"User {number}") for number in range(1, 10)
        }
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.was_asked = asyncio.Event()
        self.is_closed = False

    async def ask(self, user_ids: Sequence[str]) -> Sequence[Answer]:
        self.asked.append(list(user_ids))
        self.was_asked.set()
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        return [self.answers.get(user_id) for user_id in user_ids]

    async def close(self) -> None:
        self.is_closed = True

    def go_down(self) -> None:
        self.failure = DirectoryUnavailable("users.test: HTTP 500")

    def come_back(self) -> None:
        self.failure = None


class UserService:
    """A real HTTP server with users at /users/ID. `say` replaces what it answers, `is_open` cleared holds it up."""

    def __init__(self) -> None:
        self.profiles: dict[str, Any] = {"1": {"name": "Bob"}, "2": {"name": "Ada", "email": "ada@example.org"}}
        self.answer: bytes | None = None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.open_now = self.most_open = 0
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/users/{{id}}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Close the listener and cut every connection, as a killed process does."""
        if self._server is not None:
            self._server.close()
        for writer in self._connections:
            writer.transport.abort()

    def say(self, status: int, body: bytes = b"", *headers: str) -> None:
        """Answer everything with this."""
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers, "", ""]
        self.answer = "\r\n".join(lines).encode() + body

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                await self._answer(head[0].split(" ")[1], fields, writer)
        self._connections.discard(writer)
        writer.close()

    async def _answer(self, path: str, fields: dict[str, str], writer: asyncio.StreamWriter) -> None:
        self.requests.append((path, fields))
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        await self.is_open.wait()
        self.open_now -= 1
        writer.write(self.answer or self._find(path))
        await writer.drain()

    def _find(self, path: str) -> bytes:
        profile = self.profiles.get(path.removeprefix("/users/"))
        if profile is None:
            return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
        body = json.dumps(profile).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@asynccontextmanager
async def serving_users() -> AsyncIterator[UserService]:
    """Run a `UserService` on a free port."""
    service = UserService()
    await service.start()
    try:
        yield service
    finally:
        await service.kill()
