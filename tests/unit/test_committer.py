"""Commits: only what the group was seen to take counts, none overtakes another, and none waits for ever."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from tocsin_core.assignment import Assignment
from tocsin_core.commits import Commit
from tocsin_core.committer import LOST_AFTER_SECONDS, REFUSALS, Committer, ask_committed
from tocsin_core.consumer_config import SETTLE_SECONDS
from tocsin_core.errors import KafkaUnavailable

NO_ANSWER = KafkaException(KafkaError(KafkaError._TIMED_OUT))


class Refused:
    """A partition of which the coordinator does not say where the group stands."""

    offset = OFFSET_INVALID
    metadata = None

    def __init__(self, partition: TopicPartition, error: KafkaError) -> None:
        self.topic, self.partition, self.error = partition.topic, partition.partition, error


class Group:
    """A client and its coordinator. Answers to commits wait in `answers` until the test brings them."""

    def __init__(self) -> None:
        self.stands: dict[tuple[str, int], TopicPartition] = {}
        self.taken: list[tuple[int, str]] = []
        self.answers: list[list[TopicPartition]] = []
        self.late: list[list[TopicPartition]] = []
        """What the client repeats while everybody waits."""
        self.is_deaf = False
        self.is_silent = False
        self.refusal: KafkaError | None = None
        """What it says of each partition instead of where it stands."""
        self.slept_seconds = 0.0

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self.answers.append(offsets)
        if not self.is_deaf:
            self.take(offsets)

    def take(self, offsets: list[TopicPartition]) -> None:
        self.taken += [(each.offset, each.metadata or "") for each in offsets]
        self.stands |= {(each.topic, each.partition): each for each in offsets}

    def committed(self, partitions: list[TopicPartition], timeout: float, /) -> list[TopicPartition]:
        if self.is_silent:
            self.slept_seconds += timeout
            raise NO_ANSWER
        if self.refusal is not None:
            return [cast("TopicPartition", Refused(each, self.refusal)) for each in partitions]
        return [
            self.stands.get((each.topic, each.partition), TopicPartition(each.topic, each.partition, OFFSET_INVALID))
            for each in partitions
        ]

    def sleep(self, seconds: float) -> None:
        self.slept_seconds += seconds
        while self.late:
            self.take(self.late.pop())


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.fixture
def committer(group: Group) -> Committer:
    return Committer(clock=lambda: group.slept_seconds, sleep=group.sleep)


@pytest.fixture
def assignment() -> Assignment:
    assignment = Assignment("t", 0, 1)
    assignment.open(["a"], 0)
    finish(assignment)
    return assignment


def finish(assignment: Assignment) -> None:
    for tracker in assignment.cursors.values():
        tracker.skip(tracker.position or 0)


def test_what_was_acknowledged_is_committed_once(group: Group, committer: Committer, assignment: Assignment) -> None:
    committer.commit_due(group, [assignment])
    assert assignment.committed is None
    committer.on_commit(None, group.answers[0])
    assert assignment.committed == Commit(1)
    committer.commit_due(group, [assignment])
    assert group.taken == [(1, "")]


def test_no_commit_is_sent_while_an_earlier_one_is_on_its_way(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    committer.commit_due(group, [assignment])
    finish(assignment)
    committer.commit_due(group, [assignment])
    assert group.taken == [(1, "")]
    committer.on_commit(None, group.answers[0])
    committer.commit_due(group, [assignment])
    assert group.taken == [(1, ""), (2, "")]


def test_a_refused_commit_is_sent_again(group: Group, committer: Committer, assignment: Assignment) -> None:
    committer.commit_due(group, [assignment])
    committer.on_commit(KafkaError(KafkaError.ILLEGAL_GENERATION), group.answers[0])
    assert assignment.committed is None
    committer.commit_due(group, [assignment])
    assert group.taken == [(1, ""), (1, "")]


def test_a_commit_that_is_never_answered_does_not_end_commits(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    committer.commit_due(group, [assignment])
    group.sleep(LOST_AFTER_SECONDS)
    finish(assignment)
    committer.commit_due(group, [assignment])
    committer.on_commit(None, group.answers[1])
    assert assignment.committed == Commit(2)


def test_a_commit_that_was_given_up_and_lands_behind_a_later_one_is_put_right(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    committer.commit_due(group, [assignment])
    group.sleep(LOST_AFTER_SECONDS)
    finish(assignment)
    committer.commit_due(group, [assignment])
    committer.on_commit(None, group.answers[1])
    group.take(group.answers[0])
    committer.on_commit(None, group.answers[0])
    committer.commit_due(group, [assignment])
    committer.on_commit(None, group.answers[2])
    assert group.taken == [(1, ""), (2, ""), (1, ""), (2, "")]
    committer.commit_due(group, [assignment])
    assert len(group.answers) == 3


def test_a_hand_over_does_not_take_for_certain_what_a_late_answer_put_in_doubt(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    committer.commit_due(group, [assignment])
    group.sleep(LOST_AFTER_SECONDS)
    finish(assignment)
    committer.commit_due(group, [assignment])
    committer.on_commit(None, group.answers[1])
    group.take(group.answers[0])
    committer.on_commit(None, group.answers[0])
    assert committer.settle(group, [assignment])
    assert group.stands["t", 0].offset == 2


def test_a_topic_that_is_refused_does_not_hold_up_the_others(group: Group, committer: Committer) -> None:
    assignments = [Assignment(topic, 0, 1) for topic in ("bad", "good")]
    for assignment in assignments:
        assignment.open(["a"], 0)
        finish(assignment)
    refusal = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    for _ in range(4):
        committer.commit_due(group, assignments)
        offsets = group.answers[-1]
        committer.on_commit(refusal if any(each.topic == "bad" for each in offsets) else None, offsets)
    assert [each.committed for each in assignments] == [None, Commit(1)]


def test_how_far_channels_are_ahead_is_committed_with_the_offset(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    assignment.cursors["a"].skip(1)
    committer.commit_due(group, [assignment])
    assert group.taken == [(1, '{"":0,"a":1}')]


def test_a_hand_over_sees_the_group_stand_where_it_should(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    assert committer.settle(group, [assignment])
    assert group.taken == [(1, "")]
    assert assignment.committed == Commit(1)
    assert group.slept_seconds == 0.0


def test_a_hand_over_asks_nothing_about_what_it_knows(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    committer.commit_due(group, [assignment])
    committer.on_commit(None, group.answers[0])
    group.is_silent = True
    assert committer.settle(group, [assignment])


def test_a_hand_over_waits_until_a_commit_on_its_way_cannot_step_back_any_more(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    committer.commit_due(group, [assignment])
    finish(assignment)
    group.late.append(group.answers[0])
    assert committer.settle(group, [assignment])
    assert group.taken == [(1, ""), (2, ""), (1, ""), (2, "")]


def test_a_hand_over_gives_up_when_nobody_answers(group: Group, committer: Committer, assignment: Assignment) -> None:
    group.is_silent = True
    assert not committer.settle(group, [assignment])
    assert SETTLE_SECONDS <= group.slept_seconds <= SETTLE_SECONDS + 6
    assert assignment.committed is None


def test_an_offset_that_is_refused_is_not_one_that_was_never_committed(group: Group) -> None:
    assert ask_committed(group, [TopicPartition("t", 0)], 1.0) == {("t", 0): None}
    group.refusal = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    with pytest.raises(KafkaUnavailable):
        ask_committed(group, [TopicPartition("t", 0)], 1.0)


def test_a_hand_over_asks_again_when_it_is_not_told_where_the_group_stands(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    group.refusal = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    assert not committer.settle(group, [assignment])
    assert SETTLE_SECONDS <= group.slept_seconds <= SETTLE_SECONDS + 1
    group.refusal = None
    assert committer.settle(group, [assignment])


def test_a_hand_over_gives_up_sooner_when_the_group_does_not_want_its_commits(
    group: Group, committer: Committer, assignment: Assignment
) -> None:
    group.is_deaf = True
    assert not committer.settle(group, [assignment])
    assert len(group.answers) == REFUSALS + 1
    assert group.slept_seconds < SETTLE_SECONDS / 2
