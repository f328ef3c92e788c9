"""`tocsin dlq list|show|replay|discard`: its words and its exit codes.

0    done; nothing chosen is fine, too
1    it ended early (Kafka failed, the dead-letter topic grew, somebody said no), or a position is not there
2    the command is wrong: the text says what to change
3    done, but some letters were refused: standard error says which and why
130  interrupted: the last line says how far it came
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys

from tocsin_cli.dlq import discard, listing, replay, showing
from tocsin_core.errors import KafkaFailure

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

WORDS = {
    "list": (listing, "what is in the dead-letter topic, and why"),
    "show": (showing, "one dead letter with everything it holds"),
    "replay": (replay, "send dead letters again, on the channel they died on"),
    "discard": (discard, "mark dead letters as done with"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of `tocsin dlq` and their flags."""
    words = parser.add_subparsers(metavar="WORD", required=True)
    for name, (module, summary) in WORDS.items():
        word = words.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        module.add_arguments(word)
        word.set_defaults(word=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Run the word and return its exit code. Raise TocsinError for what has to be changed."""
    logging.getLogger("tocsin.librdkafka").addHandler(logging.NullHandler())  # what matters comes as a KafkaFailure
    try:
        return int(asyncio.run(arguments.word(arguments)))
    except KafkaFailure as failure:
        advice = f"; {failure.advice}" if failure.advice else ""
        print(f"tocsin dlq: {failure}{advice}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read has seen enough, `head` for example
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
