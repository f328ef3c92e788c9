"""Commits: one after the other, and only what was acknowledged counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from tocsin_core.assignment import Assignment
from tocsin_core.commits import Commit
from tocsin_core.committing import Answers, Committer, Due


class Broker:
    """Takes commits, and answers when the test lets it."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.asked = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.refusal = ""

    def send(self, due: Sequence[Due]) -> Answers:
        self.asked.release()
        assert self.may_answer.wait(10)
        if self.refusal:
            return [self.refusal] * len(due)
        self.taken += [commit.offset for _, commit in due]
        return [""] * len(due)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def committer(broker: Broker) -> Iterator[Committer]:
    committer = Committer(broker.send)
    yield committer
    broker.may_answer.set()
    committer.close()


@pytest.fixture
def assignment() -> Assignment:
    assignment = Assignment("t", 0, 1)
    assignment.open(["a"], 0)
    return assignment


def complete(assignment: Assignment, offset: int) -> None:
    for tracker in assignment.cursors.values():
        tracker.skip(offset)


def test_a_commit_counts_when_it_was_answered_and_not_before(
    broker: Broker, committer: Committer, assignment: Assignment
) -> None:
    broker.may_answer.clear()
    complete(assignment, 0)
    committer.begin([assignment])
    assert broker.asked.acquire(timeout=10)
    assert assignment.committed is None
    broker.may_answer.set()
    assert committer.finish([assignment], timeout_seconds=10) == []
    assert assignment.committed == Commit(1)
    assert broker.taken == [1]


def test_no_commit_begins_while_another_is_unanswered(
    broker: Broker, committer: Committer, assignment: Assignment
) -> None:
    broker.may_answer.clear()
    complete(assignment, 0)
    committer.begin([assignment])
    assert broker.asked.acquire(timeout=10)
    complete(assignment, 1)
    committer.begin([assignment])
    assert not broker.asked.acquire(blocking=False)
    broker.may_answer.set()


def test_a_hand_over_lets_what_is_on_its_way_arrive_before_its_own(
    broker: Broker, committer: Committer, assignment: Assignment
) -> None:
    broker.may_answer.clear()
    complete(assignment, 0)
    committer.begin([assignment])
    complete(assignment, 1)
    threading.Timer(0.05, broker.may_answer.set).start()
    assert committer.finish([assignment], timeout_seconds=10) == []
    assert broker.taken == [1, 2]


def test_what_was_refused_is_due_again(broker: Broker, committer: Committer, assignment: Assignment) -> None:
    broker.refusal = "the coordinator is loading"
    complete(assignment, 0)
    assert committer.finish([assignment], timeout_seconds=10) == [(assignment, "the coordinator is loading")]
    assert assignment.committed is None
    broker.refusal = ""
    assert committer.finish([assignment], timeout_seconds=10) == []
    assert broker.taken == [1]


def test_nothing_new_is_not_committed(broker: Broker, committer: Committer, assignment: Assignment) -> None:
    assert committer.finish([assignment], timeout_seconds=10) == []
    complete(assignment, 0)
    committer.finish([assignment], timeout_seconds=10)
    committer.finish([assignment], timeout_seconds=10)
    assert broker.taken == [1]
