"""What a session comes to: the JSON, the words and the exit code. Pure."""

from __future__ import annotations

import msgspec

from tocsin_cli.dev.ledger import Count

EXIT_FINE = 0
EXIT_LOST = 1
EXIT_REFUSED = 3


class Move(msgspec.Struct, frozen=True):
    """One change of the number of consumers, and why."""

    seconds: float
    replicas_before: int
    replicas_after: int
    reason: str
    message: str


class KafkaFacts(msgspec.Struct, frozen=True):
    """The Kafka that was used; the version is empty where it is not ours."""

    brokers: str
    is_embedded: bool = msgspec.field(name="embedded")
    version: str = ""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of a session. `lost`: answered 202, and neither received nor ended in any other way nor waiting.

    `duplicates`: receipts beyond the first per id and channel, counted where they are received. `waiting`: safe in
    Kafka, for another try or for a provider that is down.
    """

    accepted: int
    delivered: int
    dead_lettered: int
    refused: int
    lost: int
    duplicates: int
    replicas_max: int
    replicas_end: int
    decisions: list[Move]
    kafka: KafkaFacts
    seconds: float
    waiting: int = 0


def build_tally(
    count: Count,
    *,
    refused: int,
    replicas_max: int,
    replicas_end: int,
    moves: list[Move],
    kafka: KafkaFacts,
    seconds: float,
) -> Tally:
    """Return the tally of a session that is over: what is still open now is lost, unless Kafka is known to hold it."""
    return Tally(
        accepted=count.accepted,
        delivered=count.delivered,
        dead_lettered=count.dead_lettered,
        refused=refused,
        lost=count.open - count.waiting,
        duplicates=count.duplicates,
        replicas_max=replicas_max,
        replicas_end=replicas_end,
        decisions=moves,
        kafka=kafka,
        seconds=round(seconds, 1),
        waiting=count.waiting,
    )


def decide_exit_code(tally: Tally, *, refused_lines: int) -> int:
    """Return 1 if anything was lost, else 3 if any line of input was refused, else 0."""
    if tally.lost:
        return EXIT_LOST
    return EXIT_REFUSED if refused_lines else EXIT_FINE


def format_tally(tally: Tally) -> str:
    """Return the tally in words."""
    dropped = tally.accepted - tally.delivered - tally.dead_lettered - tally.lost - tally.waiting
    parts = [
        f"{tally.accepted:,} accepted",
        f"{tally.delivered:,} delivered",
        *([f"{tally.dead_lettered:,} dead-lettered"] if tally.dead_lettered else []),
        *([f"{dropped:,} expired or suppressed"] if dropped else []),
        *([f"{tally.refused:,} refused"] if tally.refused else []),
        *([f"{tally.waiting:,} waiting for another try"] if tally.waiting else []),
        f"{tally.lost:,} lost",
        f"{tally.duplicates:,} duplicates",
        f"at most {tally.replicas_max} consumers",
        f"{tally.seconds:.0f} s",
    ]
    return " · ".join(parts)
