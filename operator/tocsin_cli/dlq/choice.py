"""Which dead letters a command is about: the filters and positions of its flags. Pure."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tocsin_cli.dlq.letter import Letter, Position
from tocsin_cli.dlq.settlement import POSITION

AGO = re.compile(r"^([0-9]{1,6})(s|m|h|d)$")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter is chosen if it passes every filter that is set; within one filter any of its values will do."""

    reasons: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    positions: tuple[Position, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Return whether nothing narrows it."""
        return self == Choice()

    def matches(self, letter: Letter) -> bool:
        """Return whether a letter is chosen by the filters; positions are looked up, not filtered."""
        wanted = (
            (self.reasons, letter.reason),
            (self.channels, letter.channel),
            (self.keys, letter.key),
            (self.ids, letter.notification_id),
        )
        is_in_time = (self.since is None or letter.died_at >= self.since) and (
            self.until is None or letter.died_at < self.until
        )
        return is_in_time and all(not values or value in values for values, value in wanted)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the filters that list, replay and discard share."""
    filters = parser.add_argument_group(
        "filters (a letter must pass all of them; a repeated flag means any of its values)"
    )
    for name, text in (
        ("reason", "why it died, for example retries_exhausted"),
        ("channel", "the channel it died on"),
        ("key", "its key: the recipient"),
        ("id", "the notification's id"),
    ):
        filters.add_argument(f"--{name}", action="append", default=[], metavar=name.upper(), help=text)
    when = "a moment (2026-05-01T12:00Z; UTC if no zone is given) or so long ago (90s, 30m, 12h, 7d)"
    filters.add_argument("--since", type=parse_moment, metavar="WHEN", help=f"died at or after {when}")
    filters.add_argument("--until", type=parse_moment, metavar="WHEN", help="died before that moment")


def build_choice(arguments: argparse.Namespace) -> Choice:
    """Return what the flags choose."""
    return Choice(
        reasons=frozenset(arguments.reason),
        channels=frozenset(arguments.channel),
        keys=frozenset(arguments.key),
        ids=frozenset(arguments.id),
        since=arguments.since,
        until=arguments.until,
        positions=tuple(sorted(set(getattr(arguments, "positions", ())))),
    )


def parse_position(text: str) -> Position:
    """Return the position in `PARTITION:OFFSET`. Raise argparse's error for anything else."""
    found = POSITION.match(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be PARTITION:OFFSET as `tocsin dlq list` prints it, not {text!r}")
    return Position(int(found[1]), int(found[2]))


def parse_moment(text: str, *, now: datetime | None = None) -> datetime:
    """Return the moment that `text` names, or that lies so long before `now`. Raise argparse's error."""
    if found := AGO.match(text):
        return (now or datetime.now(UTC)) - timedelta(**{UNITS[found[2]]: int(found[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be a moment like 2026-05-01T12:00Z, or how long ago, like 90s, 30m, 12h or 7d, not {text!r}"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
