"""Commits of one group member that neither block its poll thread for long nor overtake each other.

While records flow, a commit is sent and its answer comes with a later poll; no other is sent before that, because the
client repeats a commit after a time-out, and one repeated behind a later one would take the group's offset back.

A hand-over has to know. It sends what is left and then asks the group where it stands: the broker answers a connection
in the order of its requests, so the question's answer tells what became of the commit, and unlike a commit it can be
given a time-out. A synchronous commit was refused for that: `rd_kafka_commit` waits without end, and was seen to wait
for ever after a coordinator had stalled for longer than a session (librdkafka 2.16).

Everything here runs in the poll thread, which is the only one that confluent_kafka lets into a consumer without
contention.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from tocsin_core.assignment import Assignment
from tocsin_core.commits import Commit
from tocsin_core.complaints import Complaints
from tocsin_core.connection import translate_exception
from tocsin_core.consumer_config import REPEAT_WITHIN_SECONDS, SOCKET_TIMEOUT_MS
from tocsin_core.logging import get_logger

LOST_AFTER_SECONDS = 2 * SOCKET_TIMEOUT_MS / 1_000
"""When a commit that nobody answered is given up, and others are sent again."""
SETTLE_SECONDS = 20.0
"""How long a hand-over waits for a coordinator that does not answer."""
REFUSALS = 15
"""How often it commits again when the coordinator answers, and the group does not stand where it should."""
ANSWER_SECONDS = 5.0
AGAIN_SECONDS = 0.2

_log = get_logger(__name__)


class CommitClient(Protocol):
    """What is needed of a `confluent_kafka.Consumer`."""

    def commit(self, *, offsets: list[TopicPartition], asynchronous: Literal[True]) -> object:
        """Send a commit."""
        ...

    def committed(self, partitions: list[TopicPartition], timeout: float, /) -> list[TopicPartition]:
        """Ask where the group stands."""
        ...


class _Sent(NamedTuple):
    """A commit on its way."""

    due: Mapping[tuple[str, int], tuple[Assignment, Commit]]
    at: float

    def is_of(self, partitions: Sequence[TopicPartition]) -> bool:
        return {(each.topic, each.partition): to_commit(each) for each in partitions} == {
            place: commit for place, (_, commit) in self.due.items()
        }


class Committer:
    """Sends the commits of one member and knows which the group has taken."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._sent: _Sent | None = None
        self._complaints = Complaints(_log.error, every_seconds=30.0)

    def commit_due(self, client: CommitClient, assignments: Iterable[Assignment]) -> None:
        """Send what may be committed, unless an earlier commit is still on its way. Never waits, never raises."""
        now = self._clock()
        if self._sent is not None and now - self._sent.at < LOST_AFTER_SECONDS:
            return
        if self._sent is not None:
            self._complaints.about("a commit was never answered", "the client lost it; a new one is sent")
        due = _find_due(assignments)
        self._sent = _Sent(due, now) if due and self._send(client, due) else None

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """Take an answer; the client calls this from within a poll."""
        sent = self._sent
        if sent is None or not sent.is_of(partitions):
            return  # of a hand-over, which has asked the group itself
        self._sent = None
        for each in partitions:
            assignment, commit = sent.due[each.topic, each.partition]
            refusal = error or each.error
            if refusal is None:
                assignment.committed = commit
            else:
                where = {"topic": each.topic, "partition": each.partition}
                self._complaints.about("a commit failed and is tried again", refusal.str(), **where)

    def settle(self, client: CommitClient, assignments: Sequence[Assignment]) -> bool:
        """Commit what is left and wait until the group stands there; return whether it does.

        A commit still on its way may yet be repeated behind the last one, so it is waited for as well.
        """
        if not self._is_under_way(assignments):
            return self._insist(client, assignments, is_certain=True)
        if not self._insist(client, assignments, is_certain=False):
            return False
        self._sleep(REPEAT_WITHIN_SECONDS)
        return self._insist(client, assignments, is_certain=False)

    def _insist(self, client: CommitClient, assignments: Sequence[Assignment], *, is_certain: bool) -> bool:
        until = self._clock() + SETTLE_SECONDS
        refusals = 0
        while not (stands := self._stand(client, assignments, is_certain=is_certain)):
            refusals += stands is False
            if refusals > REFUSALS or self._clock() >= until:
                return False
            self._sleep(AGAIN_SECONDS)
        return True

    def _is_under_way(self, assignments: Sequence[Assignment]) -> bool:
        places = {(each.topic, each.partition) for each in assignments}
        return self._sent is not None and not places.isdisjoint(self._sent.due)

    def _stand(self, client: CommitClient, assignments: Sequence[Assignment], *, is_certain: bool) -> bool | None:
        """Commit, ask, and return whether all stand where they should, or None if nobody answers.

        Where what is known is certain, it is not asked for.
        """
        wanted = _find_wanted(assignments)
        due = {place: pair for place, pair in wanted.items() if not is_certain or pair[1] != pair[0].committed}
        if not due:
            return True
        if not self._send(client, due):
            return None
        try:
            found = client.committed([TopicPartition(*place) for place in due], ANSWER_SECONDS)
        except KafkaException as error:
            self._complaints.about("a commit failed during a hand-over", str(translate_exception(error)))
            return None
        stands = {(each.topic, each.partition): to_commit(each) for each in found}
        for place, (assignment, commit) in due.items():
            assignment.committed = commit if stands[place] == commit else assignment.committed
        return all(stands[place] == commit for place, (_, commit) in due.items())

    def _send(self, client: CommitClient, due: Mapping[tuple[str, int], tuple[Assignment, Commit]]) -> bool:
        offsets = [TopicPartition(*place, commit.offset, commit.metadata) for place, (_, commit) in due.items()]
        try:
            client.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._complaints.about("a commit failed and is tried again", str(translate_exception(error)))
            return False
        return True


def to_commit(offset: TopicPartition) -> Commit | None:
    """Return what the group has committed for a partition, or None for nothing."""
    return None if offset.offset == OFFSET_INVALID else Commit(offset.offset, offset.metadata or "")


def _find_wanted(assignments: Iterable[Assignment]) -> dict[tuple[str, int], tuple[Assignment, Commit]]:
    pairs = ((each, each.commit) for each in assignments)
    return {(each.topic, each.partition): (each, commit) for each, commit in pairs if commit is not None}


def _find_due(assignments: Iterable[Assignment]) -> dict[tuple[str, int], tuple[Assignment, Commit]]:
    return {place: pair for place, pair in _find_wanted(assignments).items() if pair[1] != pair[0].committed}
