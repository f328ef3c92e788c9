"""`tocsin dlq discard`: dead letters that nobody needs any more are marked so, and `list` shows them no longer."""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import UTC, datetime
from functools import partial

from tocsin_cli.dlq.choice import Choice, add_filters, build_choice, parse_position
from tocsin_cli.dlq.journal import Journal
from tocsin_cli.dlq.letter import Letter, escape_controls
from tocsin_cli.dlq.place import add_place, find_place, producing
from tocsin_cli.dlq.settlement import Settled, Settlement, build_marker
from tocsin_cli.dlq.settling import ChoiceError, Settling, add_choice_of_all, check_choice, describe_letter
from tocsin_core.producer import RecordProducer

EXAMPLES = 5
EXIT_DECLINED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin dlq discard`."""
    parser.add_argument("positions", type=parse_position, nargs="*", metavar="PARTITION:OFFSET", help="only these")
    add_place(parser)
    add_filters(parser)
    add_choice_of_all(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


async def run(arguments: argparse.Namespace) -> int:
    """Mark the chosen letters as discarded and return the exit code. Raise ChoiceError or KafkaFailure."""
    choice, place = build_choice(arguments), find_place(arguments)
    check_choice(choice, is_all=arguments.all)
    async with Journal(place) as journal:
        settled = await journal.find_settled()
        if not arguments.yes and not await _is_confirmed(journal, settled, choice):
            print("nothing was discarded")
            return EXIT_DECLINED
        async with producing(place) as producer:
            act = partial(discard, producer, place.dead_letter_topic)
            outcome = await Settling(journal, settled, refuse=lambda _: None, act=act).run(choice)
    print(outcome.format("discarded"))
    return outcome.exit_code


async def discard(producer: RecordProducer, topic: str, letter: Letter) -> None:
    """Write the marker; return once it is stored. Raise KafkaFailure."""
    marker = build_marker(letter.position, Settlement.DISCARDED, now=datetime.now(UTC))
    await producer.send(topic, letter.record.key, b"", marker)


async def _is_confirmed(journal: Journal, settled: Settled, choice: Choice) -> bool:
    if not sys.stdin.isatty():
        raise ChoiceError("nobody is there to confirm: say --yes")
    count, examples = 0, list[Letter]()
    async for letter in journal.choose(choice):
        if settled.find(letter.position) is None:
            count += 1
            examples += [letter] if count <= EXAMPLES else []
    for letter in examples:
        print(escape_controls(f"{letter.position}  {describe_letter(letter)}"))
    if count > len(examples):
        print(f"… and {count - len(examples):,} more")
    return _ask(f"Discard {count:,} dead letters of {journal.topic}? [y/N] ")


def _ask(question: str) -> bool:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's own would wait for the answer
    return input(question).strip().lower() in {"y", "yes"}
