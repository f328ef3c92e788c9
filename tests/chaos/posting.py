"""Notifications through ingestion itself: what was answered 202 is what was sent.

Each recipient's are posted one after the other, the next one after the last one's 202, which is the order that is
promised. A refusal or a silence is repeated under the same Idempotency-Key until there is a 202.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from chaos.load import Load
from chaos.oracle import Sent
from tocsin_cli.poster import Poster

RETRY_SECONDS = 180.0


@asynccontextmanager
async def posting(
    load: Load, url: str, recipients: Sequence[str], *, each_per_second: float, chance: random.Random
) -> AsyncIterator[None]:
    """Post to these recipients for as long as this is entered, and enter what was accepted into the load's `sent`."""
    is_over = asyncio.Event()
    async with Poster(url, retry_seconds=RETRY_SECONDS) as poster, asyncio.TaskGroup() as group:
        for recipient in recipients:
            own = random.Random(chance.random())
            group.create_task(_post(load, poster, recipient, is_over, per_second=each_per_second, chance=own))
        try:
            yield
        finally:
            is_over.set()


async def _post(
    load: Load, poster: Poster, recipient: str, is_over: asyncio.Event, *, per_second: float, chance: random.Random
) -> None:
    sequence = 0
    while not is_over.is_set():
        sequence += 1
        body = {"fromID": "1", "toID": recipient, "message": str(sequence)}
        answer = await poster.post(msgspec.json.encode(body))
        if answer.notification_id is None:
            raise RuntimeError(f"ingestion did not accept {recipient}-{sequence}: {answer.reason}")
        load.sent.append(Sent(answer.notification_id, recipient, sequence, load.channels))
        await asyncio.sleep(chance.uniform(0.5, 1.5) / per_second)
