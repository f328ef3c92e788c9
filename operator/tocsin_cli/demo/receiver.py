"""A real HTTP endpoint that takes its time: verifies the signature, counts by webhook-id, waits, answers 200.

A process of its own, so that neither the load generator nor the screen can slow it down, and its count is nobody
else's. It counts when a request has arrived whole and is signed, before it waits: whatever the sender then believes,
this notification was received.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

HOOK_PATH = "/hook"
RECEIPTS_PATH = "/receipts"
MAX_BODY_BYTES = 1_048_576

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Receipts(msgspec.Struct):
    """What was received: how often each webhook-id came, and how many requests were not signed as they should be."""

    by_id: dict[str, int] = {}
    refused: int = 0


class Receiver:
    """The ASGI application."""

    def __init__(self, secret: str, *, delay_seconds: float) -> None:
        self.receipts: Counter[str] = Counter()
        self.refused = 0
        self._webhook = Webhook(secret)
        self._delay_seconds = delay_seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request: a notification on /hook, the count on /receipts, and nothing else."""
        path = scope["path"]
        if path == HOOK_PATH and scope["method"] == "POST":
            status, body = await self._take(scope, await _read_body(receive)), b""
        elif path == RECEIPTS_PATH:
            status, body = 200, msgspec.json.encode(Receipts(dict(self.receipts), self.refused))
        else:
            status, body = 404, b""
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _take(self, scope: Message, body: bytes) -> int:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._webhook.verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError):
            self.refused += 1
            return 401
        self.receipts[headers["webhook-id"]] += 1
        await asyncio.sleep(self._delay_seconds)
        return 200


async def _read_body(receive: Receive) -> bytes:
    body, is_more = b"", True
    while is_more and len(body) <= MAX_BODY_BYTES:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    return body


def main(words: Sequence[str]) -> int:
    """Serve until told to stop, on an inherited listening socket whose number is in --socket."""
    parser = argparse.ArgumentParser(prog="receiver", description="An HTTP endpoint that counts signed webhooks.")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--secret-file", type=Path, required=True)
    parser.add_argument("--delay-seconds", type=float, default=0.1)
    arguments = parser.parse_args(words)
    receiver = Receiver(arguments.secret_file.read_text().strip(), delay_seconds=arguments.delay_seconds)
    config = uvicorn.Config(receiver, lifespan="off", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=arguments.socket)])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
