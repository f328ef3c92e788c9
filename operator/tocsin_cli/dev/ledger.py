"""Who was promised a notification, and who got one: the count behind `lost` and `duplicates`. Pure.

Receipts may arrive before the acceptance they belong to (another client's 202 is learned from the topic), so both
sides are kept and joined by id and channel. An id is counted once, whatever the number of its channels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple


class End(StrEnum):
    """How a notification ends on one channel; worst last, as an id is counted under its worst end."""

    DELIVERED = "delivered"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    DEAD_LETTERED = "dead_lettered"


_WORST_LAST = list(End)


class Count(NamedTuple):
    """The ledger in numbers. `open` ids were accepted and have not ended on every channel.

    Those among them that `wait` are known to be safe in Kafka: for another try, or for a provider that is down.
    """

    accepted: int
    delivered: int
    dead_lettered: int
    dropped: int
    open: int
    duplicates: int
    waiting: int = 0


class Ledger:
    """Accepted ids on one side, ends on the other."""

    def __init__(self, channels: Sequence[str]) -> None:
        self._channels = frozenset(channels)
        self._expected: dict[str, frozenset[str]] = {}
        self._receipts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._ends: defaultdict[str, dict[str, End]] = defaultdict(dict)
        self._ended: dict[str, End] = {}
        self._totals: Counter[End] = Counter()
        self._duplicates = 0
        self._deferred: defaultdict[str, set[str]] = defaultdict(set)
        self._deferrals = 0
        self._paused: set[str] = set()

    @property
    def open(self) -> int:
        """Return how many accepted ids have not ended on every channel."""
        return len(self._expected) - len(self._ended)

    @property
    def moves(self) -> int:
        """Return how many ids have ended and how often one was deferred: a number that moves while anything does."""
        return len(self._ended) + self._deferrals

    @property
    def has_deferred(self) -> bool:
        """Return whether an open id waits in a retry topic."""
        return any(each not in self._ended for each in self._deferred)

    def accept(self, notification_id: str, channels: Sequence[str] | None = None) -> None:
        """Note that an id was answered 202 for these channels (default: all); saying so twice changes nothing."""
        if notification_id in self._expected:
            return
        self._expected[notification_id] = frozenset(channels) if channels else self._channels
        receipts = self._receipts.get(notification_id, Counter())
        self._duplicates += sum(count - 1 for count in receipts.values())
        self._settle(notification_id)

    def receive(self, notification_id: str, channel: str) -> None:
        """Note one receipt: the channel has the notification. Every receipt after the first is a duplicate."""
        receipts = self._receipts[notification_id]
        receipts[channel] += 1
        if receipts[channel] > 1 and notification_id in self._expected:
            self._duplicates += 1
        self.end(notification_id, channel, End.DELIVERED)

    def end(self, notification_id: str, channel: str, end: End) -> None:
        """Note how an id ended on a channel; the first end stands."""
        self._ends[notification_id].setdefault(channel, end)
        self._settle(notification_id)

    def defer(self, notification_id: str, channel: str) -> None:
        """Note that an id waits for another try on a channel."""
        self._deferred[notification_id].add(channel)
        self._deferrals += 1

    def pause(self, channel: str) -> None:
        """Note that a channel's provider is down, so that everything on it waits."""
        self._paused.add(channel)

    def resume(self, channel: str) -> None:
        """Note that a channel's provider answers again."""
        self._paused.discard(channel)

    def count(self) -> Count:
        """Return where things stand."""
        return Count(
            accepted=len(self._expected),
            delivered=self._totals[End.DELIVERED],
            dead_lettered=self._totals[End.DEAD_LETTERED],
            dropped=self._totals[End.EXPIRED] + self._totals[End.SUPPRESSED],
            open=self.open,
            duplicates=self._duplicates,
            waiting=self._count_waiting(),
        )

    def recount(self, receipts: Mapping[str, int], channel: str) -> Ledger:
        """Return a ledger of the same acceptances, with this channel's receipts as somebody else counted them.

        The ends that are not deliveries are kept: a receiver cannot know of a dead letter.
        """
        other = Ledger(tuple(self._channels))
        for notification_id, channels in self._expected.items():
            other.accept(notification_id, tuple(channels))
        for notification_id, count in receipts.items():
            for _ in range(count):
                other.receive(notification_id, channel)
        for notification_id, ends in self._ends.items():
            for each, end in ends.items():
                if each != channel or end is not End.DELIVERED:
                    other.end(notification_id, each, end)
        other._deferred, other._paused = self._deferred, self._paused
        return other

    def open_ids(self) -> Iterator[str]:
        """Yield the accepted ids that have not ended, in the order of acceptance."""
        return (each for each in self._expected if each not in self._ended)

    def _count_waiting(self) -> int:
        if not (self._deferred or self._paused):
            return 0
        return sum(self._is_waiting(each) for each in self.open_ids())

    def _is_waiting(self, notification_id: str) -> bool:
        missing = self._expected[notification_id] - self._ends.get(notification_id, {}).keys()
        return missing <= self._paused | self._deferred.get(notification_id, set())

    def _settle(self, notification_id: str) -> None:
        expected = self._expected.get(notification_id)
        ends = self._ends.get(notification_id, {})
        if expected is None or notification_id in self._ended or not expected <= ends.keys():
            return
        worst = max((ends[channel] for channel in expected), key=_WORST_LAST.index)
        self._ended[notification_id] = worst
        self._totals[worst] += 1
