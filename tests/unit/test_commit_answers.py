"""Commits: only what the broker acknowledged counts as committed."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tocsin_core.assignment import Assignment
from tocsin_core.commits import Commit
from tocsin_core.consumer import RecordConsumer
from tocsin_core.settings import KafkaSettings


class Answering:
    """A client whose broker answers commits as the test says."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, str]] = []
        self.failure: Exception | None = None

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        assert not asynchronous
        if self.failure is not None:
            raise self.failure
        self.taken += [(each.offset, each.metadata or "") for each in offsets]
        return offsets


@pytest.fixture
def client() -> Any:
    return Answering()


@pytest.fixture
def member() -> RecordConsumer:
    settings = KafkaSettings(brokers=["127.0.0.1:1"], topic="t")
    sink: Any = None
    return RecordConsumer(
        settings, sink, client_id="x", drain_seconds=1, max_held_records=1, max_held_bytes=1, group_protocol="classic"
    )


@pytest.fixture
def assignment() -> Assignment:
    assignment = Assignment("t", 0, 1)
    assignment.open(["a"], 0)
    for tracker in assignment.cursors.values():
        tracker.skip(0)
    return assignment


def test_what_the_broker_took_is_committed_once(client: Any, member: RecordConsumer, assignment: Assignment) -> None:
    assert member._commit(client, [assignment]) == []
    assert member._commit(client, [assignment]) == []
    assert client.taken == [(1, "")]
    assert assignment.committed == Commit(1)


def test_a_commit_without_an_answer_is_made_again_at_the_hand_over(
    client: Any, member: RecordConsumer, assignment: Assignment
) -> None:
    client.failure = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    assert [each for each, _ in member._commit(client, [assignment])] == [assignment]
    assert assignment.committed is None
    client.failure = None
    member._commit_and_wait(client, [assignment])
    assert client.taken == [(1, "")]


def test_how_far_channels_are_ahead_is_committed_with_the_offset(
    client: Any, member: RecordConsumer, assignment: Assignment
) -> None:
    assignment.cursors["a"].skip(1)
    member._commit(client, [assignment])
    assert client.taken == [(1, '{"":0,"a":1}')]
