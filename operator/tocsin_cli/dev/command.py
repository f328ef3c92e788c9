"""`tocsin dev`: its flags, its signals, its exit codes.

0  everything accepted was delivered, or ended as it should
1  something answered 202 is neither delivered nor dead-lettered
2  the command or the resource is wrong, or the pipeline cannot start: the text says what to change
3  a line of input was refused (`line N: reason` on standard error)
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
from pathlib import Path

import msgspec

from tocsin_cli.dev.plan import Input, Plan
from tocsin_cli.dev.profile import build_steady_profile
from tocsin_cli.dev.screen import Screen, build_screen
from tocsin_cli.dev.session import Session
from tocsin_cli.dev.tally import Tally, decide_exit_code, format_tally
from tocsin_cli.resource.manifest import Manifest, read_manifest
from tocsin_cli.resource.problems import ResourceError

INTERRUPTED = 130
MAX_RATE = 100_000.0
STDIN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin dev`."""
    parser.add_argument("-f", "--file", type=Path, required=True, help="YAML: the pipeline, its users, its Secrets")
    parser.add_argument("--brokers", help="use this Kafka (host:port,...) instead of starting one")
    parser.add_argument(
        "--redis", metavar="URL", help="use this store instead of starting one, or where none is asked for"
    )
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--input", metavar="NDJSON", help="post each line of this file (-: standard input), then stop")
    load.add_argument(
        "--rate", type=positive, metavar="N", help="generate N notifications per second to the file's users"
    )
    parser.add_argument("--seconds", type=positive, metavar="N", help="stop after N seconds")
    add_output_arguments(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --json and --log, which the demo has too."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what the session came to")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep every line that ingestion and consumers log")


def run(arguments: argparse.Namespace) -> int:
    """Run the pipeline until it is told to stop; return the exit code. Raise TocsinError for what has to be changed."""
    manifest = read_manifest(arguments.file)
    if manifest.pipeline.spec.suspend:
        raise ResourceError(f"{arguments.file}: spec.suspend: nothing runs while it is true; set it to false")
    check_outputs(arguments)
    tally, refused_lines = run_plan(build_plan(arguments, manifest), output=arguments.json)
    return decide_exit_code(tally, refused_lines=refused_lines)


def build_plan(arguments: argparse.Namespace, manifest: Manifest) -> Plan:
    """Return what the flags ask for. Raise ResourceError for input that is not there."""
    source = None
    if arguments.input is not None:
        source = Input(path=None if arguments.input == STDIN else Path(arguments.input))
        if source.path is not None and not source.path.is_file():
            raise ResourceError(f"--input {source.path}: no such file; name a file of one JSON body per line, or -")
    rate = arguments.rate
    if rate and not manifest.user_ids:
        raise ResourceError("--rate: posts to the users of users.configMapRef, and this file has none; use --input")
    return Plan(
        title=f"tocsin dev · {manifest.pipeline.key}",
        manifest=manifest,
        brokers=tuple(each.strip() for each in (arguments.brokers or "").split(",") if each.strip()),
        redis_url=arguments.redis,
        input=source,
        profile=build_steady_profile(arguments.seconds or math.inf, rate) if rate else None,
        seconds=arguments.seconds,
        log=arguments.log,
    )


def run_plan(plan: Plan, *, output: Path | None) -> tuple[Tally, int]:
    """Run a session with this process's terminal and signals, write the JSON and print the tally.

    Return the tally and how many lines of input were refused.
    """
    screen = build_screen(plan.title)
    session, tally = asyncio.run(_run(plan, screen))
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(tally), indent=2) + b"\n")
    print(format_tally(tally), flush=True)
    return tally, session.clients.refused_lines


def check_outputs(arguments: argparse.Namespace) -> None:
    """Empty the files of --json and --log. Raise ResourceError if that fails: better said before than after the run."""
    for flag, path in (("--json", arguments.json), ("--log", arguments.log)):
        try:
            if path is not None:
                path.write_bytes(b"")
        except OSError as error:
            raise ResourceError(f"{flag} {path}: {error.strerror}; name a file that can be written") from error


async def _run(plan: Plan, screen: Screen) -> tuple[Session, Tally]:
    stop = asyncio.Event()
    session = Session(plan, screen, stop)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _interrupt, screen, stop)
    try:
        return session, await session.run()
    finally:
        screen.close()


def _interrupt(screen: Screen, stop: asyncio.Event) -> None:
    if stop.is_set():  # the second time: at once; every child dies with us
        screen.close()
        os._exit(INTERRUPTED)
    stop.set()
    screen.remark("draining: what was accepted is delivered first; once more to leave at once")


def positive(text: str) -> float:
    """Return a number of seconds or per second. Raise argparse's error outside 0 to 100,000."""
    number = float(text)
    if not 0 < number <= MAX_RATE:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {MAX_RATE:g}, not {text}")
    return number
