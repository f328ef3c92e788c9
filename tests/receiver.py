"""A real HTTP server that takes webhooks, remembers them, and answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Delivery:
    """One request: its headers in lower case, its body, and when it came and was answered."""

    path: str
    headers: dict[str, str]
    body: bytes
    came_at: float
    answered_at: float

    @property
    def data(self) -> dict[str, Any]:
        """The notification and its recipient."""
        content: dict[str, Any] = json.loads(self.body)["data"]
        return content

    @property
    def id(self) -> str:
        """The notification's id."""
        return str(self.data["id"])


@dataclass
class Answer:
    """What is answered: status, headers, and after how many seconds."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    body: bytes = b""


class Server(ThreadingHTTPServer):
    """Keeps callers waiting at the door: with the library's five places, the sixth at once may be turned away."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False


class Receiver:
    """Listens on a free port of the loopback while it is entered."""

    def __init__(self, answer: Callable[[Delivery], Answer] | Answer | None = None) -> None:
        self.answer = answer or Answer()
        self.deliveries: list[Delivery] = []
        self._changed = threading.Condition()
        self._server = Server(("127.0.0.1", 0), self._build_handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def ids(self) -> list[str]:
        """The ids of the notifications that were answered 2xx, in the order they came."""
        with self._changed:
            return [each.id for each in sorted(self.deliveries, key=lambda each: each.came_at)]

    async def wait_for(self, count: int, *, timeout_seconds: float = 60.0) -> list[Delivery]:
        """Return the deliveries once there are so many. Raise AssertionError if they do not come in time."""
        return await asyncio.to_thread(self._wait_for, count, timeout_seconds)

    async def wait_for_path(self, path: str, count: int, *, timeout_seconds: float = 120.0) -> list[Delivery]:
        """Return the deliveries on one path once there are so many. Raise AssertionError as `wait_for` does."""
        await asyncio.to_thread(self._wait_for, count, timeout_seconds, path)
        return self.on_path(path)

    def on_path(self, path: str) -> list[Delivery]:
        """Return the deliveries on one path so far."""
        with self._changed:
            return [each for each in self.deliveries if each.path == path]

    def _wait_for(self, count: int, timeout_seconds: float, path: str = "") -> list[Delivery]:
        def has_enough() -> bool:
            return sum(each.path == path or not path for each in self.deliveries) >= count

        with self._changed:
            has_come = self._changed.wait_for(has_enough, timeout_seconds)
            assert has_come, f"fewer than {count} deliveries came within {timeout_seconds} s"
            return list(self.deliveries)

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        came_at = time.monotonic()
        seen = Delivery(path, headers, body, came_at, came_at)
        answer = self.answer(seen) if callable(self.answer) else self.answer
        time.sleep(answer.delay_seconds)
        with self._changed:
            if answer.status < 300:
                self.deliveries.append(Delivery(path, headers, body, came_at, time.monotonic()))
            self._changed.notify_all()
        return answer

    def _build_handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver._take(self.path, headers, body)
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # a consumer that was killed does not say goodbye
                    super().handle()

        return Handler
