"""What really happened, judged from outside: what was sent against what the receiving servers wrote down. Pure.

Nothing Tocsin says of itself is believed, with one exception that the promise names: the counter of uncertain sends,
which bounds the duplicates. A delivery is one notification on one channel. A receipt is a request that reached a
receiving server whole; it `is_taken` if the server acted on it, whatever answer the sender saw. An order is judged by
the servers' order of arrival, twice: first attempts always, first receipts that were taken where the pipeline promises
that too (retries that stay in the lane, or strict order).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Delivery(NamedTuple):
    """One notification on one channel."""

    id: str
    channel: str


class Sent(NamedTuple):
    """A notification that was accepted: the `sequence`-th of its recipient, owed on these channels."""

    id: str
    recipient: str
    sequence: int
    channels: tuple[str, ...]


class Receipt(NamedTuple):
    """One request at a receiving server."""

    id: str
    channel: str
    recipient: str
    sequence: int
    is_taken: bool

    @property
    def delivery(self) -> Delivery:
        """Return what was received."""
        return Delivery(self.id, self.channel)


@dataclass(frozen=True)
class Evidence:
    """What the oracle looks at. `doubtful` are ids whose acceptance nobody knows: they may arrive or not."""

    sent: Sequence[Sent]
    receipts: Sequence[Receipt]
    dead_letters: Collection[Delivery] = ()
    uncertain: int = 0
    doubtful: Collection[str] = ()


@dataclass(frozen=True)
class Promise:
    """What a scenario holds the pipeline to, beyond the promise that holds always."""

    is_graceful: bool = False
    """Nothing crashes: no duplicate at all, not even a counted one."""
    keeps_order_of_deliveries: bool = True
    """Later notifications wait behind one that is tried again, so the order of what was taken holds too."""
    may_bury: bool = False
    """Dead letters are expected; elsewhere they would hide a loss."""
    replays: bool = False
    """Dead letters are sent again, long after those that were behind them."""
    max_uncertain: int | None = None
    """How many sends can have been cut off; more would be a counter that excuses anything."""
    bounds_duplicates: bool = True
    """False where a crash meets a pipeline without a store: it may repeat what finished since the last commit."""


@dataclass(frozen=True)
class Counts:
    """One row of the table, in deliveries."""

    sent: int = 0
    lost: int = 0
    duplicates: int = 0
    uncertain: int = 0
    out_of_order: int = 0
    dead_lettered: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Add two rows."""
        return Counts(*(mine + theirs for mine, theirs in zip(self._values, other._values, strict=True)))

    @property
    def _values(self) -> tuple[int, ...]:
        return (self.sent, self.lost, self.duplicates, self.uncertain, self.out_of_order, self.dead_lettered)


@dataclass(frozen=True)
class Findings:
    """The counts, and which deliveries they are about."""

    counts: Counts
    lost: tuple[Delivery, ...] = ()
    repeated: tuple[Delivery, ...] = ()
    late: tuple[Delivery, ...] = ()
    strange: tuple[Delivery, ...] = ()
    buried: tuple[Delivery, ...] = ()


class Breach(NamedTuple):
    """A way in which the promise was broken, and the deliveries that show it."""

    reason: str
    deliveries: tuple[Delivery, ...] = ()


def examine(evidence: Evidence, promise: Promise) -> Findings:
    """Return what became of everything that was sent."""
    owed = [Delivery(each.id, channel) for each in evidence.sent for channel in each.channels]
    taken = Counter(each.delivery for each in evidence.receipts if each.is_taken)
    ended = taken.keys() | set(evidence.dead_letters)
    lost = tuple(each for each in owed if each not in ended)
    repeated = tuple(each for each, times in taken.items() if times > 1)
    late = find_late(evidence.receipts)
    dead_letters = set(evidence.dead_letters)
    if promise.keeps_order_of_deliveries:
        late |= find_late(
            each
            for each in evidence.receipts
            if each.is_taken and not (promise.replays and each.delivery in dead_letters)
        )
    known = set(owed)
    strange = {each.delivery for each in evidence.receipts if each.id not in evidence.doubtful} - known
    buried = tuple(each for each in owed if each in dead_letters)
    counts = Counts(
        sent=len(owed),
        lost=len(lost),
        duplicates=taken.total() - len(taken),
        uncertain=evidence.uncertain,
        out_of_order=len(late),
        dead_lettered=len(buried),
    )
    return Findings(counts, lost, repeated, tuple(sorted(late)), tuple(sorted(strange)), buried)


def find_late(receipts: Iterable[Receipt]) -> set[Delivery]:
    """Return the deliveries whose first receipt came after one of a later notification to the same recipient."""
    seen: set[Delivery] = set()
    highest: dict[tuple[str, str], int] = {}
    late: set[Delivery] = set()
    for each in receipts:
        if each.delivery in seen:
            continue
        seen.add(each.delivery)
        lane = (each.recipient, each.channel)
        if each.sequence < highest.get(lane, -1):
            late.add(each.delivery)
        highest[lane] = max(each.sequence, highest.get(lane, -1))
    return late


def judge(findings: Findings, promise: Promise) -> list[Breach]:
    """Return the ways in which the promise was broken; none if it was kept."""
    counts = findings.counts
    allowed = 0 if promise.is_graceful else counts.uncertain
    breaches = {
        Breach(f"{counts.lost} deliveries were lost", findings.lost): counts.lost > 0,
        Breach(f"{counts.out_of_order} first deliveries came out of order", findings.late): counts.out_of_order > 0,
        Breach(f"{counts.duplicates} duplicates, {allowed} allowed", findings.repeated): (
            promise.bounds_duplicates and counts.duplicates > allowed
        ),
        Breach(f"{len(findings.strange)} deliveries that nobody sent", findings.strange): len(findings.strange) > 0,
        Breach(f"{counts.dead_lettered} dead letters, none expected", findings.buried): (
            counts.dead_lettered > 0 and not promise.may_bury
        ),
        Breach(f"{counts.uncertain} uncertain sends, at most {promise.max_uncertain} can be"): (
            promise.max_uncertain is not None and counts.uncertain > promise.max_uncertain
        ),
        Breach("nothing was sent: the scenario shows nothing"): counts.sent == 0,
    }
    return [breach for breach, is_broken in breaches.items() if is_broken]
