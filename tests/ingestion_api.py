"""The API on the server it runs on, over real sockets; only Kafka is stood in for, to make it fail on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, cast

import httpx

from tocsin_core.codec import Headers
from tocsin_core.errors import KafkaFailure
from tocsin_core.outgoing import Outgoing, Stored
from tocsin_core.users import DirectoryUnavailable, Profile
from tocsin_ingestion.accept import Acceptor, Target
from tocsin_ingestion.admission import Limits
from tocsin_ingestion.api import build_api
from tocsin_ingestion.auth.gate import Gate
from tocsin_ingestion.draft import Rules
from tocsin_ingestion.exchange import Parts
from tocsin_ingestion.plain_http import PlainProtocol
from tocsin_ingestion.protocol import HotPathProtocol, bind_protocol
from tocsin_ingestion.report import Reporter
from tocsin_ingestion.web import App, DrainingServer, bind, build_config

GOOD: dict[str, Any] = {"fromID": 1, "toID": 2, "message": "hi"}
ONE, BATCH = "/v1/notifications", "/v1/notifications:batch"

LIMITS = Limits(max_in_flight=100, max_in_flight_bytes=1_000_000, max_bodies_bytes=5_000_000)

Way = Literal["hot", "routes"]
"""Through the hot path, or with uvicorn's own protocol behind it: everything through FastAPI."""


class Directory:
    """Knows 1 and 2 at once, and 3 only after a look; stumbles over 666, and cannot tell about 503."""

    async def find(self, user_id: str) -> Profile | None:
        if user_id == "666":
            raise ZeroDivisionError
        await asyncio.sleep(0)
        if user_id == "503":
            raise DirectoryUnavailable("users.http: HTTP 500")
        return Profile(id=user_id) if user_id in {"1", "2", "3"} else None

    def knows_all(self, user_ids: Collection[str]) -> bool:
        return {"1", "2"}.issuperset(user_ids)


class Sink:
    """Stores at once, unless `failure` is set or `is_open` is cleared."""

    def __init__(self) -> None:
        self.in_flight = self.in_flight_bytes = 0
        self.oldest_in_flight_seconds = 0.0
        self.records: list[tuple[bytes, bytes, dict[str, bytes]]] = []
        self.failure: KafkaFailure | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.was_asked = asyncio.Event()
        self._storing: set[asyncio.Future[None]] = set()

    def send_all(self, topic: str, contents: Sequence[tuple[bytes, bytes, Headers]]) -> list[Outgoing]:
        return [self.send(topic, key, value, headers) for key, value, headers in contents]

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers) -> Outgoing:
        self.was_asked.set()
        record = Outgoing(topic, (key, value, headers))
        self._storing.add(asyncio.ensure_future(self._store(record, (key, value, dict(headers)))))
        return record

    async def _store(self, record: Outgoing, content: tuple[bytes, bytes, dict[str, bytes]]) -> None:
        await self.is_open.wait()
        if self.failure is None:
            self.records.append(content)
        record.settle(self.failure or Stored(0, 0))


class Running(NamedTuple):
    client: httpx.AsyncClient
    sink: Sink
    server: DrainingServer
    acceptor: Acceptor
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, HotPathProtocol]:
        """Return the client's side of a new connection, and the server's: what that is given arrives in one read."""
        known = set(self.server.server_state.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while not (new := self.server.server_state.connections - known):  # noqa: ASYNC110 - a set has no event
            await asyncio.sleep(0.01)
        (connection,) = new
        return reader, writer, cast("HotPathProtocol", connection)  # on the other way only what both have is used

    async def wait_until_left(self) -> None:
        """Wait until nobody is connected."""
        while self.server.server_state.connections:  # noqa: ASYNC110 - a set has no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def run_api(
    way: Way = "hot",
    *,
    delivery_timeout_seconds: float = 10.0,
    app: App | None = None,
    sink: Any = None,
    topic: str = "t",
    limits: Limits = LIMITS,
    gate: Gate | None = None,
    **options: Any,
) -> AsyncIterator[Running]:
    """Serve the API one way or the other; `app` stands behind the hot path instead of the routes."""
    sink = sink or Sink()
    target = Target(topic, "default/orders", delivery_timeout_seconds)
    acceptor = Acceptor(Directory(), sink, target, limits=limits)
    parts = Parts(acceptor, Rules(("push",)), Reporter(topic="t"), gate)
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    protocol = bind_protocol(parts) if way == "hot" else PlainProtocol
    config = build_config(app or build_api(*parts), protocol, graceful_seconds=5)
    for name, value in options.items():
        setattr(config, name, value)
    server = DrainingServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            yield Running(client, sink, server, acceptor, port)
    finally:
        server.should_exit = True
        await serving
