"""`tocsin send`: one notification, or a file of them, to an ingestion service.

    tocsin send --from 1 --to 2 "hi"
    tocsin send --url https://notify.example.org --input my.ndjson

Prints the id of each accepted notification; refusals go to standard error as `line N: reason`. Exit 0, 3 if any was
refused, 1 if no service answered.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from tocsin_cli.credentials import add_token_argument, read_token
from tocsin_cli.feed import Line, Target, post_lines, read_lines
from tocsin_cli.poster import NO_ANSWER, Answer, Poster
from tocsin_core.errors import TocsinError

DEFAULT_URL = "http://127.0.0.1:8080"
RETRY_SECONDS = 30.0
STDIN = "-"
EXIT_FINE = 0
EXIT_UNANSWERED = 1
EXIT_REFUSED = 3


class SendError(TocsinError):
    """The flags do not say what to send; the text says what is missing."""


class Outcome:
    """What became of the lines."""

    def __init__(self) -> None:
        self.refused = 0
        self.unanswered = 0

    def note(self, line: Line, target: Target, answer: Answer) -> None:
        """Print one line's id, or why it has none."""
        del target
        if answer.notification_id is not None:
            print(answer.notification_id, flush=True)
            return
        self.refused += 1
        self.unanswered += answer.status == NO_ANSWER
        print(f"line {line.number}: {answer.reason}", file=sys.stderr, flush=True)

    @property
    def exit_code(self) -> int:
        """Return 1 if a line got no answer, else 3 if one was refused, else 0."""
        if self.unanswered:
            return EXIT_UNANSWERED
        return EXIT_REFUSED if self.refused else EXIT_FINE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin send`."""
    parser.add_argument("message", nargs="?", help="the text of one notification")
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the ingestion service (default: {DEFAULT_URL})")
    add_token_argument(parser)
    parser.add_argument("--from", dest="from_id", metavar="ID", help="the sender's id")
    parser.add_argument("--to", dest="to_id", metavar="ID", help="the recipient's id")
    parser.add_argument("--title", help="a title")
    parser.add_argument(
        "--channel", action="append", dest="channels", metavar="NAME", help="only this channel; repeatable"
    )
    parser.add_argument("--input", metavar="NDJSON", help="send each line of this file instead (-: standard input)")


def run(arguments: argparse.Namespace) -> int:
    """Send what the flags say and return the exit code. Raise SendError if they do not say it."""
    return asyncio.run(_send(arguments))


def build_line(arguments: argparse.Namespace) -> Line:
    """Return the one notification in the flags. Raise SendError naming the flag that is missing."""
    wanted = {"MESSAGE": arguments.message, "--from": arguments.from_id, "--to": arguments.to_id}
    if missing := [name for name, value in wanted.items() if not value]:
        raise SendError(f"{' and '.join(missing)} missing: give MESSAGE, --from and --to, or --input FILE")
    body = {
        "fromID": arguments.from_id,
        "toID": arguments.to_id,
        "message": arguments.message,
        **({"title": arguments.title} if arguments.title else {}),
        **({"channels": arguments.channels} if arguments.channels else {}),
    }
    return Line(1, msgspec.json.encode(body))


async def _send(arguments: argparse.Namespace) -> int:
    outcome = Outcome()
    lines = _read(arguments.input) if arguments.input else _just(build_line(arguments))
    token = read_token(arguments.token_file)
    async with Poster(arguments.url, token=token, retry_seconds=RETRY_SECONDS if arguments.input else 0.0) as poster:
        await post_lines(lines, poster.post, outcome.note)
    return outcome.exit_code


def _read(name: str) -> AsyncIterator[Line]:
    path = None if name == STDIN else Path(name)
    if path is not None and not path.is_file():
        raise SendError(f"--input {path}: no such file; name a file of one JSON body per line, or -")
    return read_lines(path, asyncio.Event())


async def _just(line: Line) -> AsyncIterator[Line]:
    yield line
