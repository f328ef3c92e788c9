"""`tocsin dlq list`: a table for people, one JSON object per line for everything else."""

from __future__ import annotations

import argparse
import heapq
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from tocsin_cli.dlq.choice import add_filters, build_choice
from tocsin_cli.dlq.journal import Journal
from tocsin_cli.dlq.letter import UNKNOWN, Letter, escape_controls
from tocsin_cli.dlq.place import add_place, find_place
from tocsin_cli.dlq.settlement import Settled, Settlement
from tocsin_cli.dlq.table import cut, format_table

DEFAULT_LIMIT = 50
MAX_LIMIT = 10_000
PIPE_COLUMNS = 200
MAX_CELL_COLUMNS = 40  # whoever wrote a record chose how long its key is; an id that ingestion gave has 36
HEADER = ("POSITION", "DIED AT (UTC)", "REASON", "CHANNEL", "ID", "KEY", "TRIES", "REPLAYS", "ERROR")
NUMBERS = ("TRIES", "REPLAYS")


class Row(NamedTuple):
    """A letter, and how it was settled if it was."""

    letter: Letter
    settlement: Settlement | None


class Summary:
    """How many letters there are, by reason and channel, whether they are shown or not."""

    def __init__(self) -> None:
        self.by_cause: Counter[tuple[str, str]] = Counter()
        self.settled: Counter[Settlement] = Counter()

    def note(self, row: Row) -> None:
        """Count one letter; one that is settled is counted apart."""
        if row.settlement is not None:
            self.settled[row.settlement] += 1
        else:
            self.by_cause[row.letter.reason or UNKNOWN, row.letter.channel or UNKNOWN] += 1

    def format(self) -> str:
        """Return the counts in words, the largest cause first."""
        lines = [f"{count:>9,}  {reason} on {channel}" for (reason, channel), count in self.by_cause.most_common()]
        settled = [f"{count:,} {settlement}" for settlement, count in sorted(self.settled.items())]
        hidden = f" ({', '.join(settled)} before)" if settled else ""
        return escape_lines([f"{self.by_cause.total():,} dead letters{hidden}", *lines])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin dlq list`."""
    add_place(parser)
    add_filters(parser)
    parser.add_argument(
        "--limit",
        type=_limit,
        metavar="N",
        help=f"show at most N (default: the newest {DEFAULT_LIMIT}; with --json all, in the order of the topic)",
    )
    parser.add_argument("--oldest", action="store_true", help="the oldest first, and not the newest")
    parser.add_argument("--settled", action="store_true", help="show replayed and discarded ones, too")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


async def run(arguments: argparse.Namespace) -> int:
    """Print the chosen dead letters; return 0. Raise KafkaFailure if the topic cannot be read."""
    async with Journal(find_place(arguments)) as journal:
        settled, summary = await journal.find_settled(), Summary()
        rows = _count(_join(journal, settled, arguments), summary)
        rows = (row async for row in rows if arguments.settled or row.settlement is None)
        if arguments.json and arguments.limit is None:
            async for row in rows:
                print(msgspec.json.encode(describe(row)).decode())
            return 0
        shown = await choose_rows(rows, arguments.limit or DEFAULT_LIMIT, is_oldest=arguments.oldest)
    for row in shown if arguments.json else ():
        print(msgspec.json.encode(describe(row)).decode())
    if not arguments.json:
        _print_table(shown)
        print(summary.format())
    return 0


async def choose_rows(rows: AsyncIterator[Row], limit: int, *, is_oldest: bool) -> list[Row]:
    """Return the `limit` newest rows, newest first (or the oldest, oldest first), holding no more than these."""
    sign = -1 if is_oldest else 1
    kept: list[tuple[int, int, Row]] = []
    number = 0
    async for row in rows:
        number += 1
        entry = (sign * row.letter.record.timestamp_ms, sign * number, row)
        if len(kept) < limit:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
    return [row for _, _, row in sorted(kept, reverse=True)]


def describe(row: Row) -> dict[str, Any]:
    """Return a letter as JSON tells of it."""
    letter = row.letter
    return {
        "position": str(letter.position),
        "diedAt": letter.died_at.isoformat(),
        "reason": letter.reason,
        "channel": letter.channel,
        "id": letter.notification_id,
        "key": letter.key,
        "attempts": letter.attempts,
        "replayCount": letter.replay_count,
        "error": letter.error_message,
        "originalTopic": letter.topic,
        "original": letter.origin,
        **({"settled": row.settlement.value} if row.settlement else {}),
    }


def escape_lines(lines: Iterable[str]) -> str:
    """Return the lines as one text, with control characters written out."""
    return "\n".join(escape_controls(line) for line in lines)


async def _join(journal: Journal, settled: Settled, arguments: argparse.Namespace) -> AsyncIterator[Row]:
    async for letter in journal.choose(build_choice(arguments)):
        yield Row(letter, settled.find(letter.position))


async def _count(rows: AsyncIterator[Row], summary: Summary) -> AsyncIterator[Row]:
    async for row in rows:
        summary.note(row)
        yield row


def _print_table(rows: Sequence[Row]) -> None:
    if not rows:
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_COLUMNS
    cells = [list(map(escape_controls, _build_cells(row))) for row in rows]
    lines = [[*(cut(cell, MAX_CELL_COLUMNS) for cell in line[:-1]), line[-1]] for line in cells]
    print("\n".join(format_table(HEADER, lines, columns=columns, right_aligned=NUMBERS)))


def _build_cells(row: Row) -> tuple[str, ...]:
    letter = row.letter
    return (
        str(letter.position),
        f"{letter.died_at:%Y-%m-%d %H:%M:%S}",
        f"{letter.reason or UNKNOWN}{f' ({row.settlement})' if row.settlement else ''}",
        letter.channel or UNKNOWN,
        letter.notification_id or UNKNOWN,
        letter.key or UNKNOWN,
        str(letter.attempts),
        str(letter.replay_count),
        letter.error_message or UNKNOWN,
    )


def _limit(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MAX_LIMIT:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MAX_LIMIT}, not {text!r}")
    return int(text)
