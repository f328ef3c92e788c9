"""`tocsin dlq replay`: dead letters back into the pipeline, for the channel they died on.

It reads no further than the topic's end when it began, so it never replays what it caused itself; and it stops when
the topic grows meanwhile, because then the cause is not mended.
"""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from datetime import UTC, datetime
from functools import partial

from tocsin_cli.dlq.choice import add_filters, build_choice, parse_position
from tocsin_cli.dlq.decision import build_replay_headers, decide_refusal
from tocsin_cli.dlq.journal import Journal
from tocsin_cli.dlq.letter import Letter, escape_controls, read_letter
from tocsin_cli.dlq.place import Place, add_place, find_place, producing
from tocsin_cli.dlq.settlement import Settlement, build_marker, read_marker
from tocsin_cli.dlq.settling import Settling, add_choice_of_all, check_choice, describe_letter
from tocsin_core.producer import RecordProducer

DEFAULT_MAX_REPLAYS = 3
MAX_RATE = 100_000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin dlq replay`."""
    parser.add_argument("positions", type=parse_position, nargs="*", metavar="PARTITION:OFFSET", help="only these")
    add_place(parser)
    add_filters(parser)
    add_choice_of_all(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be replayed, and replay nothing")
    parser.add_argument("--rate", type=_rate, metavar="N", help="at most N a second (default: as fast as it goes)")
    parser.add_argument(
        "--max-replays",
        type=_count,
        default=DEFAULT_MAX_REPLAYS,
        metavar="N",
        help=f"refuse what was replayed N times already (default: {DEFAULT_MAX_REPLAYS})",
    )
    parser.add_argument("--ignore-growth", action="store_true", help="go on when new dead letters come meanwhile")


async def run(arguments: argparse.Namespace) -> int:
    """Replay the chosen letters and return the exit code. Raise ChoiceError, SettingsError or KafkaFailure."""
    choice, place = build_choice(arguments), find_place(arguments)
    check_choice(choice, is_all=arguments.all)
    refuse = partial(_refuse, topic=place.topic, max_replays=arguments.max_replays, ttl_seconds=place.ttl_seconds)
    async with Journal(place) as journal:
        settled = await journal.find_settled()
        if arguments.dry_run:
            outcome = await Settling(journal, settled, refuse=refuse, act=_say).run(choice)
            print(outcome.format("would replay"))
            return outcome.exit_code
        growth = None if arguments.ignore_growth else Growth(journal).look
        async with producing(place) as producer:
            settling = Settling(journal, settled, refuse=refuse, act=partial(replay, producer, place))
            outcome = await settling.run(choice, per_second=arguments.rate, watch=growth)
    print(outcome.format("replayed"))
    return outcome.exit_code


async def replay(producer: RecordProducer, place: Place, letter: Letter) -> None:
    """Write a letter to the pipeline's topic and then its marker; return once both are stored. Raise KafkaFailure."""
    record = letter.record
    await producer.send(place.topic, record.key, record.value, build_replay_headers(letter))
    marker = build_marker(letter.position, Settlement.REPLAYED, now=datetime.now(UTC))
    await producer.send(place.dead_letter_topic, record.key, b"", marker)


class Growth:
    """What has come to the dead-letter topic since the command began, markers aside."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._positions = {number: extent.log_end for number, extent in journal.extents.items()}

    async def look(self) -> str | None:
        """Return why the replay should end, or None while nothing new has died. Raise KafkaFailure."""
        causes, again = Counter[str](), 0
        async for record in self._journal.read_beyond(self._positions):
            if read_marker(record) is None:
                letter = read_letter(record)
                causes[f"{letter.reason} on {letter.channel}"] += 1
                again += letter.replay_count > 0
        if not causes:
            return None
        return (
            f"{causes.total():,} new dead letters, {again:,} of them replayed before ({', '.join(sorted(causes))}): "
            "mend the cause first, or go on with --ignore-growth"
        )


async def _say(letter: Letter) -> None:
    print(escape_controls(f"{letter.position} would be replayed: {describe_letter(letter)}"), flush=True)


def _refuse(letter: Letter, *, topic: str, max_replays: int, ttl_seconds: int | None) -> str | None:
    now = datetime.now(UTC)
    return decide_refusal(letter, topic=topic, max_replays=max_replays, ttl_seconds=ttl_seconds, now=now)


def _rate(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) <= MAX_RATE:
            return number
    raise argparse.ArgumentTypeError(f"must be a number above 0 and at most {MAX_RATE:g}, not {text!r}")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)
