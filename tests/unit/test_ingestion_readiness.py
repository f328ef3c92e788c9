from __future__ import annotations

import asyncio

import pytest

from tocsin_core.errors import KafkaUnavailable, NotAuthorized
from tocsin_core.users import DirectoryUnavailable
from tocsin_ingestion.readiness import Readiness


class World:
    """What can be seen, and the time."""

    def __init__(self, *, users_patience_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.topic: Exception | None = None
        self.users: Exception | None = None
        self.readiness = Readiness(
            "orders",
            self._see_topic,
            self._see_users,
            users_patience_seconds=users_patience_seconds,
            clock=lambda: self.now,
        )

    async def _see_topic(self) -> None:
        if self.topic:
            raise self.topic

    async def _see_users(self) -> None:
        if self.users:
            raise self.users


def test_nothing_is_ready_before_the_first_look() -> None:
    assert "not seen yet" in World().readiness.check()


async def test_a_topic_and_users_that_were_seen_are_ready() -> None:
    world = World()
    await world.readiness.observe()
    assert world.readiness.check() == ""


async def test_a_topic_without_rights_is_the_reason() -> None:
    world = World()
    world.topic = NotAuthorized("not authorized", advice="grant")
    await world.readiness.observe()
    assert world.readiness.check() == "topic orders: not authorized"


async def test_a_pause_of_ten_seconds_changes_nothing_and_a_long_one_does() -> None:
    world = World()
    await world.readiness.observe()
    world.topic, world.now = KafkaUnavailable("nobody answers"), world.now + 10
    await world.readiness.observe()
    assert world.readiness.check() == ""
    world.now += 11
    await world.readiness.observe()
    assert world.readiness.check() == "topic orders: nobody answers"


async def test_it_is_ready_again_as_soon_as_kafka_is_seen_again() -> None:
    world = World()
    world.topic = KafkaUnavailable("nobody answers")
    await world.readiness.observe()
    world.topic = None
    await world.readiness.observe()
    assert world.readiness.check() == ""


async def test_looks_that_stopped_are_noticed() -> None:
    world = World()
    await world.readiness.observe()
    world.now += 60
    assert "was not asked" in world.readiness.check()


async def test_unreadable_users_are_the_reason() -> None:
    world = World()
    world.users = DirectoryUnavailable("/etc/tocsin/users: no such file")
    await world.readiness.observe()
    assert world.readiness.check() == "/etc/tocsin/users: no such file"


async def test_a_directory_that_was_there_is_borne_for_as_long_as_users_are_remembered_and_told_meanwhile() -> None:
    world = World(users_patience_seconds=600.0)
    world.users = DirectoryUnavailable("users.http: HTTP 500")
    await world.readiness.observe()
    assert world.readiness.check() == "users.http: HTTP 500"  # it was never there: something is wrong with the settings
    world.users = None
    await world.readiness.observe()
    assert (world.readiness.check(), world.readiness.remark()) == ("", "")
    world.users = DirectoryUnavailable("users.http: HTTP 500")
    for _ in range(60):
        world.now += 10.0
        await world.readiness.observe()
        assert (world.readiness.check(), world.readiness.remark()) == ("", "users.http: HTTP 500")
    world.now += 10.0
    await world.readiness.observe()
    assert (world.readiness.check(), world.readiness.remark()) == ("users.http: HTTP 500", "")


async def test_a_directory_that_takes_long_keeps_nobody_from_the_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_ingestion.readiness.USERS_SECONDS", 0.0)
    answered, asked = asyncio.Event(), 0

    async def see_users() -> None:
        nonlocal asked
        asked += 1
        await answered.wait()

    world = World(users_patience_seconds=600.0)
    await world.readiness.observe()
    world.readiness._see_users = see_users
    for _ in range(10):
        world.now += 10.0
        await world.readiness.observe()
        assert world.readiness.check() == ""
    assert asked == 1
    answered.set()
    monkeypatch.setattr("tocsin_ingestion.readiness.USERS_SECONDS", 10.0)
    await world.readiness.observe()
    await world.readiness.observe()
    assert asked == 2


async def test_leaving_is_never_ready() -> None:
    world = World()
    await world.readiness.observe()
    world.readiness.leave()
    assert world.readiness.check() == "draining"
