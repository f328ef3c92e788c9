"""From `main` to exit code: an event loop (uvloop where there is one) and signals that ask, once, to come to an end.

SIGTERM, however often, and the first SIGINT set the event; a second SIGINT means somebody at a keyboard has waited
long enough, and has Python's usual effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any

COLLECT_AFTER_OBJECTS = 20_000

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    """Run `main(stop)` on a fresh event loop and return its exit code; `stop` is set by SIGTERM or SIGINT."""
    with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
        return runner.run(_run_until_stopped(main))


def stop_on_signals() -> asyncio.Event:
    """Return an event of the running loop that SIGTERM and SIGINT set."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def interrupt() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    return stop


def rest_garbage_collection() -> None:
    """Leave what start-up made out of collections, and collect less often.

    Neither a request nor a delivery leaves cycles behind, but their objects bring on a collection every few of them by
    Python's defaults, and each looks through all that is held: a tenth of a consumer's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 50)


async def _run_until_stopped(main: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    return await main(stop_on_signals())


def _find_loop_factory() -> LoopFactory | None:
    with contextlib.suppress(ImportError):  # there is none for Windows
        import uvloop  # noqa: PLC0415 - optional

        return uvloop.new_event_loop
    return None
