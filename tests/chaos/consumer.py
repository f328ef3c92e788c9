"""A consumer process of the suite: the shipped worker, with a group protocol, a crash point, a bug or a census.

    python -m chaos.consumer --config FILE [--protocol classic] [--crash-at POINT --after N] [--bug NAME]

Only the names that `tocsin_consumer.worker` builds its parts from are replaced; with no option it is `tocsin consume`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos.bugs import Bug, put_in
from chaos.census import keep_counting
from chaos.crash_points import (
    Crash,
    CrashingChannel,
    CrashingClaims,
    CrashingRetryTopics,
    CrashPoint,
    build_crashing_consumer,
)
from tocsin_consumer import worker
from tocsin_core.settings import load_settings

CENSUS_SECONDS = 10.0


def put_in_crash(crash: Crash) -> None:
    """Make the worker build its parts with a crash point in them."""
    parts: Any = worker
    build_claims, build_channels, retry_topics = parts.build_claims, parts.build_channels, parts.RetryTopics
    replace_parts(
        build_claims=lambda settings: CrashingClaims(build_claims(settings), crash),
        build_channels=lambda settings: {
            name: CrashingChannel(channel, crash) for name, channel in build_channels(settings).items()
        },
        RetryTopics=lambda *words: CrashingRetryTopics(retry_topics(*words), crash),
        RecordConsumer=build_crashing_consumer(crash),
    )


def put_in_census(path: Path) -> None:
    """Make the worker write down, now and then, how much it holds."""
    kind: Any = worker.Worker

    class CountedWorker(kind):  # type: ignore[misc]  # whichever class the worker's module has by now
        async def start(self, closing: contextlib.AsyncExitStack) -> None:
            await super().start(closing)
            counting = asyncio.create_task(keep_counting(self, path, every_seconds=CENSUS_SECONDS))
            closing.callback(counting.cancel)

    replace_parts(Worker=CountedWorker)


def replace_parts(**parts: Any) -> None:
    """Replace what the worker module knows under these names."""
    for name, part in parts.items():
        if not hasattr(worker, name):
            raise AttributeError(f"the worker builds nothing called {name}: the suite must follow it")
        setattr(worker, name, part)


def main(words: Sequence[str]) -> int:
    """Run the consumer service until SIGTERM, or until it reaches its crash point."""
    parser = argparse.ArgumentParser(prog="chaos.consumer")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--protocol", choices=["auto", "consumer", "classic"], default="auto")
    parser.add_argument("--crash-at", type=CrashPoint, choices=list(CrashPoint))
    parser.add_argument("--after", type=int, default=1)
    parser.add_argument("--bug", type=Bug, choices=list(Bug))
    parser.add_argument("--census", type=Path, help="where to write how much it holds, every ten seconds")
    arguments = parser.parse_args(words)
    if arguments.bug:
        put_in(arguments.bug)
    if arguments.census:
        put_in_census(arguments.census)
    if arguments.crash_at:
        put_in_crash(Crash(arguments.crash_at, arguments.after))
    consumer: Any = vars(worker)["RecordConsumer"]
    replace_parts(RecordConsumer=functools.partial(consumer, group_protocol=arguments.protocol))
    return worker.run(load_settings(arguments.config))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
