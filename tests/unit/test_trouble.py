"""What keeps records from coming, and what takes each trouble back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tocsin_core.client_statistics import read_statistics
from tocsin_core.connection import Code, translate
from tocsin_core.errors import KafkaUnavailable, NotAuthenticated, NotAuthorized, TopicMissing
from tocsin_core.trouble import Trouble

UP = read_statistics(json.dumps({"brokers": {"one": {"state": "DOWN"}, "two": {"state": "UP"}}}))
DOWN = read_statistics(json.dumps({"brokers": {"one": {"state": "DOWN"}}}))


@pytest.fixture
def said() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def trouble(said: list[dict[str, Any]]) -> Trouble:
    return Trouble(lambda event, **fields: said.append({"event": event, **fields}))


def test_nobody_is_well_before_a_broker_has_answered(trouble: Trouble) -> None:
    trouble.note_statistics(DOWN)
    assert isinstance(trouble.current, KafkaUnavailable)
    trouble.note_statistics(UP)
    assert trouble.current is None


def test_all_brokers_down_does_not_hide_a_wrong_password(trouble: Trouble, said: list[dict[str, Any]]) -> None:
    trouble.note_connection(KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error"))
    trouble.note_connection(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert isinstance(trouble.current, NotAuthenticated)
    assert len(said) == 1
    assert "password" in said[0]["advice"]


def test_a_broker_that_is_up_again_takes_a_lost_connection_back(trouble: Trouble) -> None:
    trouble.note_connection(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    trouble.note_statistics(DOWN)
    assert isinstance(trouble.current, KafkaUnavailable)
    trouble.note_statistics(UP)
    assert trouble.current is None


def test_a_record_takes_a_refusal_back_without_a_new_assignment(trouble: Trouble) -> None:
    trouble.note_group(translate(Code.TOPIC_AUTHORIZATION, "no"))
    trouble.note_progress()
    assert trouble.current is None


def test_a_topic_that_is_there_is_not_missing_any_more(trouble: Trouble) -> None:
    trouble.note_group(translate(Code.UNKNOWN_TOPIC_OR_PARTITION, "no such topic"))
    assert isinstance(trouble.current, TopicMissing)
    trouble.note_topic_seen(is_owner=False)
    assert trouble.current is None


def test_a_coordinator_that_was_away_is_forgotten_by_whoever_still_owns_partitions(trouble: Trouble) -> None:
    trouble.note_group(translate(Code.COORDINATOR_NOT_AVAILABLE, "away"))
    trouble.note_topic_seen(is_owner=False)
    assert trouble.current is not None
    trouble.note_topic_seen(is_owner=True)
    assert trouble.current is None


def test_a_missing_right_is_not_disproved_by_seeing_the_topic(trouble: Trouble) -> None:
    trouble.note_group(translate(Code.TOPIC_AUTHORIZATION, "no"))
    trouble.note_topic_seen(is_owner=True)
    assert isinstance(trouble.current, NotAuthorized)
