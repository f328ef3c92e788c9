"""An ingestion pod as a process of its own, and people who listen to it with a real WebSocket client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from world import ConsumerProcess, World

SCREEN = {"name": "screen", "type": "WebSocket"}


class IngestionProcess(ConsumerProcess):
    """An ingestion pod."""

    port = 0

    async def wait_ready(self) -> None:
        """Return when it listens and people may connect."""
        (line,) = await self.wait_for("ingestion listening")
        self.port = line["port"]
        await self.wait_for("topic usable")

    def build_address(self, query: str) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream?{query}"

    async def post(self, **fields: Any) -> str:
        """Post a notification and return its id."""
        body = {"fromID": 1, "toID": 2, "message": "hi"} | fields
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            answer = await client.post("/v1/notifications", json=body, timeout=30)
        assert answer.status_code == 202, answer.text
        notification_id: str = answer.json()["id"]
        return notification_id


async def start_ingestion(
    world: World, redis_url: str, *, log_level: str = "info", **ingestion: Any
) -> IngestionProcess:
    """Start an ingestion pod of this world's pipeline."""
    sections: dict[str, Any] = {
        "redis": {"url": redis_url},
        "log": {"level": log_level},
        "ingestion": {"host": "127.0.0.1", "port": 0, "drain_seconds": 2} | ingestion,
    }
    process = IngestionProcess(await world.spawn("ingest", [SCREEN], **sections))
    world.processes.append(process)
    await process.wait_ready()
    return process


@asynccontextmanager
async def listening(pod: IngestionProcess, user_id: int | str, **options: Any) -> AsyncIterator[ClientConnection]:
    """Connect as a user."""
    async with connect(pod.build_address(f"user={user_id}"), compression=None, **options) as connection:
        yield connection


async def read_frame(connection: ClientConnection, *, timeout_seconds: float = 30.0) -> dict[str, Any]:
    """Return the next frame."""
    async with asyncio.timeout(timeout_seconds):
        frame: dict[str, Any] = json.loads(await connection.recv(decode=True))
    return frame


async def read_frames(connection: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Return the next frames."""
    return [await read_frame(connection) for _ in range(count)]
