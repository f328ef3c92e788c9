"""When a Kafka client that knows no broker any more is given up."""

from __future__ import annotations

import json

import pytest

from tocsin_core.client_statistics import LOST_SECONDS, LostWatch, Statistics, read_statistics


def make(**sources: str) -> Statistics:
    brokers = {name: {"state": "UP", "source": source, "nodeid": 1} for name, source in sources.items()}
    return read_statistics(json.dumps({"brokers": brokers, "topics": {}}))


NONE = make(GroupCoordinator="logical", internal="internal")


@pytest.fixture
def watch() -> LostWatch:
    return LostWatch()


def test_a_client_without_brokers_is_lost_after_a_while(watch: LostWatch) -> None:
    watch.note(NONE, 100.0)
    watch.note(NONE, 100.0 + LOST_SECONDS / 2)
    assert not watch.is_lost(100.0 + LOST_SECONDS - 0.1)
    assert watch.is_lost(100.0 + LOST_SECONDS)


@pytest.mark.parametrize("source", ["configured", "learned"])
def test_a_broker_to_ask_is_all_it_takes(watch: LostWatch, source: str) -> None:
    watch.note(NONE, 0.0)
    watch.note(make(GroupCoordinator="logical", one=source), 1.0)
    watch.note(NONE, 2.0)
    assert not watch.is_lost(LOST_SECONDS + 1.0)
    assert watch.is_lost(LOST_SECONDS + 2.0)


def test_a_new_client_begins_with_all_of_its_time(watch: LostWatch) -> None:
    watch.note(NONE, 0.0)
    watch.begin_again()
    assert not watch.is_lost(LOST_SECONDS)
