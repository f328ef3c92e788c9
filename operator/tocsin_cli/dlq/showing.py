"""`tocsin dlq show PARTITION:OFFSET`: one dead letter, whole."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import msgspec

from tocsin_cli.dlq.choice import parse_position
from tocsin_cli.dlq.journal import Journal
from tocsin_cli.dlq.letter import UNKNOWN, Letter, decode_text, escape_controls
from tocsin_cli.dlq.place import add_place, find_place
from tocsin_cli.dlq.settlement import Settlement
from tocsin_core.codec import UNREADABLE_JSON

EXIT_MISSING = 1
DUMP_BYTES = 16
MAX_DUMP_BYTES = 4_096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin dlq show`."""
    parser.add_argument("position", type=parse_position, metavar="PARTITION:OFFSET", help="as `list` prints it")
    add_place(parser)


async def run(arguments: argparse.Namespace) -> int:
    """Print the letter at a position; return 0, or 1 if there is none. Raise KafkaFailure."""
    async with Journal(find_place(arguments)) as journal:
        letter = await journal.find(arguments.position)
        if letter is None:
            print(f"{journal.topic} has no dead letter at {arguments.position}", file=sys.stderr)
            return EXIT_MISSING
        settled = await journal.find_settled()
    print("\n".join(format_letter(letter, settled.find(letter.position))))
    return 0


def format_letter(letter: Letter, settlement: Settlement | None) -> Iterator[str]:
    """Yield the lines that tell everything about a letter; nothing in them can drive a terminal."""
    record = letter.record
    failed = f"first failure {letter.first_failed_at or UNKNOWN}, last {letter.last_failed_at or UNKNOWN}"
    fields = {
        "position": str(letter.position),
        "died": f"{letter.died_at.isoformat()} ({failed})",
        "reason": f"{letter.reason or UNKNOWN} on {letter.channel or UNKNOWN}",
        "error": f"{letter.error_class or UNKNOWN}: {letter.error_message or UNKNOWN}",
        "attempts": str(letter.attempts),
        "replayed": f"{letter.replay_count} times before it died here",
        "now": settlement.value if settlement else "open",
        "from": f"{letter.topic or UNKNOWN} {letter.origin}, read by group {letter.group or UNKNOWN}",
        "id": letter.notification_id or UNKNOWN,
        "key": UNKNOWN if letter.key is None else letter.key,
    }
    yield from (f"{name:<9} {escape_controls(text)}" for name, text in fields.items())
    yield "headers"
    for name, value in record.headers:
        yield f"  {escape_controls(name)}: {'null' if value is None else escape_controls(decode_text(value))}"
    if letter.omitted_bytes is None:
        yield from format_value(record.value)
    else:
        yield f"value     {letter.omitted_bytes:,} bytes that the dead-letter topic did not take"


def format_value(value: bytes | None) -> Iterator[str]:
    """Yield a value: JSON indented, anything else as bytes in hexadecimal, shortened to its first 4096."""
    if value is None:
        yield "value     null"
        return
    try:
        text = msgspec.json.format(msgspec.json.encode(msgspec.json.decode(value)), indent=2).decode()
    except UNREADABLE_JSON:
        yield f"value     {len(value):,} bytes, not JSON"
        yield from _dump(value)
        return
    yield f"value     {len(value):,} bytes of JSON"
    yield from (escape_controls(line) for line in text.splitlines())


def _dump(value: bytes) -> Iterator[str]:
    for start in range(0, min(len(value), MAX_DUMP_BYTES), DUMP_BYTES):
        piece = value[start : start + DUMP_BYTES]
        text = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in piece)  # noqa: PLR2004 - printable ASCII
        yield f"  {start:06x}  {piece.hex(' '):<{3 * DUMP_BYTES}} {text}"
    if len(value) > MAX_DUMP_BYTES:
        yield f"  … {len(value) - MAX_DUMP_BYTES:,} bytes more"
