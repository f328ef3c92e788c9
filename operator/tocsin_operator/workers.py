"""The workers that take keys from the queue: the one place where a look at a pipeline may fail.

Whatever happens to one pipeline, its key goes back with a later time and the worker takes the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tocsin_core.errors import TocsinError
from tocsin_operator import metrics
from tocsin_operator.queue import KeyQueue

LOOK_TIMEOUT_SECONDS = 120.0

Look = Callable[[str], Awaitable[float | None]]

log = structlog.get_logger(__name__)


async def run_workers(queue: KeyQueue, look: Look, *, count: int) -> None:
    """Take keys and look at them, `count` at a time, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(_work(queue, look), name=f"worker {number}")


async def _work(queue: KeyQueue, look: Look) -> None:
    while True:
        key = await queue.get()
        metrics.queue_length.set(len(queue))
        with metrics.reconcile_seconds.time():
            outcome = await look_once(queue, look, key)
        metrics.reconciles.labels(outcome).inc()


async def look_once(queue: KeyQueue, look: Look, key: str) -> str:
    """Look at one taken key, give it back to the queue, and return how that ended."""
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
            again_after_seconds = await look(key)
    except TocsinError as error:
        seconds = queue.retry(key)
        log.warning("pipeline not reconciled", pipeline=key, error=str(error), retry_in_seconds=seconds)
        return "retried"
    except TimeoutError:
        seconds = queue.retry(key)
        log.warning("pipeline not reconciled in time", pipeline=key, retry_in_seconds=seconds)
        return "timed_out"
    except Exception:  # a loop top: one pipeline's bug must not stop the others
        seconds = queue.retry(key)
        log.exception("pipeline not reconciled", pipeline=key, retry_in_seconds=seconds)
        return "failed"
    queue.finish(key, again_after_seconds=again_after_seconds)
    return "gone" if again_after_seconds is None else "done"
