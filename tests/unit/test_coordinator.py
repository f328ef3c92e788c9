"""When a member that looks for its coordinator looks in vain."""

from __future__ import annotations

import json

import pytest

from tocsin_core.client_statistics import Statistics, read_statistics
from tocsin_core.coordinator import WITHOUT_SECONDS, CoordinatorWatch


def make(group: str, broker: str = "UP") -> Statistics:
    states = {"one:9092/1": {"state": broker, "nodeid": 1}, "GroupCoordinator": {"state": "INIT", "nodeid": -1}}
    cgrp = {"state": group, "join_state": "init"}
    return read_statistics(json.dumps({"brokers": states, "cgrp": cgrp, "topics": {}}))


@pytest.fixture
def watch() -> CoordinatorWatch:
    return CoordinatorWatch()


def test_a_client_that_looks_for_a_minute_while_a_broker_answers_is_astray(watch: CoordinatorWatch) -> None:
    watch.note(make("query-coord"), 100.0)
    watch.note(make("wait-coord"), 100.0 + WITHOUT_SECONDS / 2)
    assert not watch.is_astray(100.0 + WITHOUT_SECONDS - 0.1)
    assert watch.is_astray(100.0 + WITHOUT_SECONDS)


def test_a_coordinator_that_was_found_ends_the_search(watch: CoordinatorWatch) -> None:
    watch.note(make("query-coord"), 0.0)
    watch.note(make("up"), 1.0)
    watch.note(make("wait-broker"), 2.0)
    assert not watch.is_astray(WITHOUT_SECONDS + 1.0)
    assert watch.is_astray(WITHOUT_SECONDS + 2.0)


def test_nobody_is_astray_while_no_broker_is_up(watch: CoordinatorWatch) -> None:
    watch.note(make("query-coord"), 0.0)
    watch.note(make("query-coord", broker="DOWN"), WITHOUT_SECONDS)
    assert not watch.is_astray(2 * WITHOUT_SECONDS)


def test_a_new_client_begins_with_all_of_its_time(watch: CoordinatorWatch) -> None:
    watch.note(make("query-coord"), 0.0)
    watch.begin_again()
    assert not watch.is_astray(WITHOUT_SECONDS)


def test_a_client_without_a_group_has_no_coordinator() -> None:
    assert not read_statistics('{"brokers": {}}').has_coordinator
