"""The demo's receiver counts signed requests by webhook-id, and nothing else."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from standardwebhooks.webhooks import Webhook

from tocsin_cli.demo.receiver import HOOK_PATH, RECEIPTS_PATH, Receipts, Receiver

SECRET = "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQ="


async def ask(
    receiver: Receiver, path: str, *, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, bytes]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await receiver({"path": path, "method": "POST", "headers": pairs}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def signed(webhook_id: str, body: bytes) -> dict[str, str]:
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign(webhook_id, now, body.decode())
    return {"webhook-id": webhook_id, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}


async def test_signed_requests_are_counted_by_id() -> None:
    receiver = Receiver(SECRET, delay_seconds=0.0)
    for webhook_id in ("a", "b", "a"):
        status, _ = await ask(receiver, HOOK_PATH, headers=signed(webhook_id, b"{}"), body=b"{}")
        assert status == 200
    _, body = await ask(receiver, RECEIPTS_PATH)
    assert msgspec.json.decode(body, type=Receipts) == Receipts({"a": 2, "b": 1}, 0)


async def test_a_request_that_is_not_signed_is_refused_and_counted_apart() -> None:
    receiver = Receiver(SECRET, delay_seconds=0.0)
    status, _ = await ask(receiver, HOOK_PATH, headers=signed("a", b"{}"), body=b'{"changed": 1}')
    assert status == 401
    status, _ = await ask(receiver, HOOK_PATH, body=b"{}")
    assert status == 401
    assert (receiver.receipts.total(), receiver.refused) == (0, 2)


async def test_any_other_path_is_not_found() -> None:
    assert (await ask(Receiver(SECRET, delay_seconds=0.0), "/elsewhere"))[0] == 404
