"""The pods of the fleet: one process that answers for many addresses of the loopback, each with a socket of its own.

    python -m bench.fleet.pages --pods 1000 --port 39090

The page is what a consumer of three channels serves, rendered anew once a second: in a cluster every pod has its own
processor for that, and here it would be taken from the operator's.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import IPv4Address
from typing import Any

import uvicorn
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

import tocsin_consumer.worker  # noqa: F401 - registers all that a consumer counts
from tocsin_consumer import metrics
from tocsin_core.metrics import registry

FIRST_ADDRESS = IPv4Address("127.64.0.1")
CHANNELS = ("push", "mail", "hook")
RENDER_SECONDS = 1.0
READY = "pods answer"

Message = MutableMapping[str, Any]


def list_addresses(pods: int) -> list[str]:
    """Return the addresses of so many pods."""
    return [str(FIRST_ADDRESS + number) for number in range(pods)]


class Pages:
    """An ASGI callable that answers everything with the metrics page."""

    def __init__(self) -> None:
        self._page = b""
        self._rendered_at = 0.0

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Answer one request."""
        del scope, receive
        if time.monotonic() - self._rendered_at > RENDER_SECONDS:
            self._page, self._rendered_at = generate_latest(registry), time.monotonic()
        length = str(len(self._page)).encode()
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._page})


def count_some_work() -> None:
    """Have every metric that has a channel show one, as after a day's work."""
    for channel in CHANNELS:
        for outcome in metrics.Outcome:
            metrics.deliveries(channel, outcome).inc(1_000)
        metrics.send_seconds(channel).observe(0.02)
        metrics.CHANNEL_HELD_SECONDS.labels(channel)
        metrics.BREAKER_STATE.labels(channel).set(0)
        metrics.ATTEMPTS_FAILED.labels(channel).inc()
    metrics.PROCESSED.inc(1_000)
    metrics.BUSY_SLOT_SECONDS.inc(20)
    metrics.CONCURRENCY.set(64)


async def serve(pods: int, port: int) -> None:
    """Answer until cancelled; say so on standard output once all sockets listen."""
    sockets = [socket.create_server((address, port), backlog=16) for address in list_addresses(pods)]
    config = uvicorn.Config(Pages(), log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    print(READY, flush=True)
    await server.serve(sockets=sockets)


def main() -> int:
    """Serve."""
    parser = argparse.ArgumentParser(prog="bench.fleet.pages", description=__doc__)
    parser.add_argument("--pods", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    count_some_work()
    asyncio.run(serve(arguments.pods, arguments.port))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
