"""Commits of one group member that neither block its poll thread for long nor overtake each other.

While records flow, a commit is sent and its answer comes with a later poll; no other is sent before that, because the
client repeats a commit after a time-out, and one repeated behind a later one would take the group's offset back.

A hand-over has to know. It sends what is left and then asks the group where it stands: the broker answers a connection
in the order of its requests, so the question's answer tells what became of the commit, and unlike a commit it can be
given a time-out. A synchronous commit was refused for that: `rd_kafka_commit` waits without end, and was seen to wait
for ever after a coordinator had stalled for longer than a session (librdkafka 2.16).

A commit that was given up, or that a hand-over did not wait for, may still land behind a later one. When its answer
comes, where the group stands is in doubt, and it is committed again.

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
from tocsin_core.connection import translate_error, translate_exception
from tocsin_core.consumer_config import REPEAT_WITHIN_SECONDS, SETTLE_SECONDS, SOCKET_TIMEOUT_MS
from tocsin_core.errors import KafkaFailure
from tocsin_core.logging import get_logger

LOST_AFTER_SECONDS = 2 * SOCKET_TIMEOUT_MS / 1_000
"""When a commit that nobody answered is given up, and others are sent again. It may be answered all the same."""
APART_SECONDS = 30.0
"""How long after a refusal the topics are committed apart: the client blames all of a commit for any of its topics."""
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


Place = tuple[str, int]
Due = Mapping[Place, tuple[Assignment, Commit]]


class _Sent(NamedTuple):
    """A commit on its way."""

    due: Due
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
        self._doubtful: set[Place] = set()
        self._apart_until = float("-inf")
        self._last_topic = ""
        self._complaints = Complaints(_log.error, every_seconds=30.0)

    def commit_due(self, client: CommitClient, assignments: Iterable[Assignment]) -> None:
        """Send what may be committed, unless an earlier commit is still on its way. Never waits, never raises."""
        now = self._clock()
        if self._sent is not None and now - self._sent.at < LOST_AFTER_SECONDS:
            return
        if self._sent is not None:
            self._doubtful |= self._sent.due.keys()
            self._complaints.about("a commit was never answered", "the client lost it; a new one is sent")
        due = self._find_due(assignments)
        if due and now < self._apart_until:
            due = self._keep_next_topic(due)
        self._sent = _Sent(due, now) if due and self._send(client, due) else None

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """Take an answer; the client calls this from within a poll."""
        sent = self._sent
        if sent is None or not sent.is_of(partitions):
            self._doubtful |= {(each.topic, each.partition) for each in partitions}
            return
        self._sent = None
        refusal = error or next((each.error for each in partitions if each.error is not None), None)
        if refusal is not None:
            self._apart_until = self._clock() + APART_SECONDS
            topics = sorted({topic for topic, _ in sent.due})
            self._complaints.about("a commit failed and is tried again", refusal.str(), topics=topics)
            return
        for assignment, commit in sent.due.values():
            assignment.committed = commit
        self._doubtful -= sent.due.keys()

    def settle(self, client: CommitClient, assignments: Sequence[Assignment]) -> bool:
        """Commit what is left and wait until the group stands there; return whether it does.

        A commit still on its way may yet be repeated behind the last one, so it is waited for as well.
        """
        until = self._clock() + SETTLE_SECONDS
        if not self._may_be_overtaken(assignments):
            return self._insist(client, assignments, until, is_certain=True)
        if not self._insist(client, assignments, until, is_certain=False):
            return False
        self._sleep(REPEAT_WITHIN_SECONDS)
        return self._insist(client, assignments, until, is_certain=False)

    def _insist(
        self, client: CommitClient, assignments: Sequence[Assignment], until: float, *, is_certain: bool
    ) -> bool:
        refusals = 0
        while not (stands := self._stand(client, assignments, is_certain=is_certain)):
            refusals += stands is False
            if refusals > REFUSALS or self._clock() >= until:
                return False
            self._sleep(AGAIN_SECONDS)
        return True

    def _may_be_overtaken(self, assignments: Sequence[Assignment]) -> bool:
        places = _find_wanted(assignments).keys()
        under_way = self._sent.due.keys() if self._sent is not None else set()
        return not places.isdisjoint(self._doubtful | under_way)

    def _find_due(self, assignments: Iterable[Assignment]) -> Due:
        wanted = _find_wanted(assignments)
        return {
            place: (assignment, commit)
            for place, (assignment, commit) in wanted.items()
            if commit != assignment.committed or place in self._doubtful
        }

    def _keep_next_topic(self, due: Due) -> Due:
        topics = sorted({topic for topic, _ in due})
        self._last_topic = next((topic for topic in topics if topic > self._last_topic), topics[0])
        return {place: pair for place, pair in due.items() if place[0] == self._last_topic}

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
            stands = ask_committed(client, [TopicPartition(*place) for place in due], ANSWER_SECONDS)
        except KafkaFailure as failure:
            self._complaints.about("a commit failed during a hand-over", str(failure))
            return None
        for place, (assignment, commit) in due.items():
            if stands[place] == commit:
                assignment.committed = commit
                self._doubtful.discard(place)
        return all(stands[place] == commit for place, (_, commit) in due.items())

    def _send(self, client: CommitClient, due: Due) -> bool:
        offsets = [TopicPartition(*place, commit.offset, commit.metadata) for place, (_, commit) in due.items()]
        try:
            client.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._complaints.about("a commit failed and is tried again", str(translate_exception(error)))
            return False
        return True


def ask_committed(
    client: CommitClient, partitions: list[TopicPartition], timeout_seconds: float
) -> dict[Place, Commit | None]:
    """Return where the group stands, None for a partition where it has committed nothing. Raise KafkaFailure.

    A refusal of one partition is one of all: its offset looks as if nothing had ever been committed.
    """
    try:
        found = client.committed(partitions, timeout_seconds)
    except KafkaException as error:
        raise translate_exception(error) from error
    for each in found:
        if each.error is not None:
            raise translate_error(each.error)
    return {(each.topic, each.partition): to_commit(each) for each in found}


def to_commit(offset: TopicPartition) -> Commit | None:
    """Return what the group has committed for a partition, or None for nothing."""
    return None if offset.offset == OFFSET_INVALID else Commit(offset.offset, offset.metadata or "")


def _find_wanted(assignments: Iterable[Assignment]) -> Due:
    pairs = ((each, each.commit) for each in assignments)
    return {(each.topic, each.partition): (each, commit) for each, commit in pairs if commit is not None}
