"""Health and metrics for kubelet and Prometheus, on a port of their own.

A raw ASGI callable under uvicorn: the consumer image carries no FastAPI, and three paths need no router. It runs on
the service's own event loop on purpose: a loop that hangs does not answer, and that is what liveness asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http import HTTPStatus
from typing import Any

import uvicorn
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tocsin_core.errors import SettingsError
from tocsin_core.metrics import registry
from tocsin_core.settings import HealthSettings

BACKLOG = 128
STOP_SECONDS = 1

Check = Callable[[], str]
Answer = tuple[HTTPStatus, str, bytes]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def _remark_nothing() -> str:
    return ""


def health_app(*, check_ready: Check, check_alive: Check, remark: Check = _remark_nothing) -> App:
    """Return an ASGI callable that serves /healthz, /readyz and /metrics; a check returns "" or what is wrong.

    A `remark` is trouble that leaves the pod ready: /readyz tells whoever looks.
    """
    answers: dict[str, Callable[[], Answer]] = {
        "/healthz": lambda: _answer_check(check_alive),
        "/readyz": lambda: _answer_check(check_ready, remark),
        "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
    }

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        del receive  # these paths read no bodies
        if scope["type"] != "http":
            return
        status, content_type, body = answers.get(scope["path"], _answer_unknown)()
        await _send(send, status, content_type, b"" if scope["method"] == "HEAD" else body)

    return app


class HealthServer:
    """Serves `health_app` until stopped."""

    def __init__(
        self, settings: HealthSettings, *, check_ready: Check, check_alive: Check, remark: Check = _remark_nothing
    ) -> None:
        self._settings = settings
        self._app = health_app(check_ready=check_ready, check_alive=check_alive, remark=remark)
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """Return the port it listens on; known once started."""
        return self._port

    async def start(self) -> None:
        """Listen and serve. Raise SettingsError when the address cannot be had."""
        listener = _listen(self._settings)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="health-server")
        await self._server.is_up.wait()

    async def stop(self) -> None:
        """Stop serving. Calling it twice is fine."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await self._task
        self._server = self._task = None


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: when the process ends is the service's own decision."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(settings: HealthSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"health.host {settings.host!r} with health.port {settings.port}: {error.strerror}; "
            "choose a free port with TOCSIN_HEALTH__PORT (0: any)",
        ) from error


def _answer_check(check: Check, remark: Check = _remark_nothing) -> Answer:
    reason = check()
    status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
    fine = f"ok, but {but}" if (but := remark()) else "ok"
    return status, "text/plain; charset=utf-8", f"{reason or fine}\n".encode()


def _answer_unknown() -> Answer:
    return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"here are /healthz, /readyz and /metrics\n"


async def _send(send: Send, status: HTTPStatus, content_type: str, body: bytes) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
