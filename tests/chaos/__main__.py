"""`python -m chaos`: break running pipelines and count what was lost, repeated or reordered.

    python -m chaos [--seeds N | --seed K] [--only FAULT]... [--break BUG] [--directory PATH]
    python -m chaos --prove

The last line of standard output is JSON. The exit code is 1 if any promise was broken; with `--prove`, which puts one
deliberate bug after the other in, it is 1 if any bug was not noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from chaos.bugs import Bug
from chaos.faults import FAULTS
from chaos.ground import Broker
from chaos.proof import prove
from chaos.report import build_last_line, build_table, describe_failure
from chaos.suite import Result, run_seed

TABLE = "table.txt"
"""Where the findings so far stand, in the folder of the logs, while further seeds run."""


async def run(arguments: argparse.Namespace) -> int:
    """Run the suite, print its findings; return the exit code."""
    seeds = [arguments.seed] if arguments.seed is not None else range(1, arguments.seeds + 1)
    faults = [fault for fault in FAULTS if not arguments.only or fault.name in arguments.only]
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="tocsin-chaos-"))
    bug = str(arguments.bug or "")
    results: list[Result] = []
    if arguments.prove:
        async with Broker(directory / "broker") as broker:
            return 1 if await prove(broker, directory) else 0
    for seed in seeds:
        began = time.monotonic()
        news = await run_seed(faults, seed, directory, bug=bug, say=_say)
        for result in news:
            if not result.is_kept:
                print(describe_failure(result, bug), flush=True)
        results += news
        _say(f"seed {seed}: {time.monotonic() - began:.0f} s")
        (directory / TABLE).write_text(f"{build_table(results)}\n{build_last_line(results)}\n", encoding="utf-8")
    print(build_table(results))
    print(build_last_line(results))
    return 0 if all(result.is_kept for result in results) else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(words: Sequence[str]) -> int:
    """Understand the command line and run."""
    names = [fault.name for fault in FAULTS]
    parser = argparse.ArgumentParser(prog="chaos", description="Break running pipelines and count.")
    parser.add_argument("--seeds", type=int, default=5, help="run seeds 1 to N (default: 5)")
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--only", action="append", choices=names, help="run this fault alone; may be repeated")
    parser.add_argument("--break", dest="bug", type=Bug, choices=list(Bug), help="put a deliberate bug in")
    parser.add_argument("--prove", action="store_true", help="show that the suite notices every deliberate bug")
    parser.add_argument("--directory", type=Path, help="where logs are kept (default: a new temporary folder)")
    logging.getLogger("tocsin").addHandler(logging.NullHandler())  # a broker that is killed on purpose is no news
    return asyncio.run(run(parser.parse_args(words)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
