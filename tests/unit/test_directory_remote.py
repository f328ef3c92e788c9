"""A directory behind a network as its callers see it: quick where it remembers, honest where it cannot know."""

from __future__ import annotations

import asyncio

import pytest

from directories import Clock, Source
from tocsin_core.breaker import FAILURES_IN_A_ROW
from tocsin_core.directory import metrics
from tocsin_core.directory.remote import RemoteUserDirectory
from tocsin_core.metrics import registry
from tocsin_core.settings import UsersCacheSettings
from tocsin_core.users import DirectoryUnavailable, Profile, ProfileInvalid

CACHE = UsersCacheSettings(entries=100, ttl_seconds=60, unknown_ttl_seconds=5, stale_seconds=600)
ADA = Profile(id="2", name="User 2")


class Town:
    def __init__(self) -> None:
        self.clock = Clock()
        self.source = Source(max_ids=100)
        self.directory = RemoteUserDirectory(self.source, CACHE, clock=self.clock)


@pytest.fixture
async def town() -> Town:
    return Town()


async def test_only_who_was_asked_about_lately_is_known_at_once(town: Town) -> None:
    assert not town.directory.knows_all(["2"])
    assert await town.directory.find("2") == ADA
    assert town.directory.knows_all(["2"])
    assert not town.directory.knows_all(["2", "77"])
    town.clock.now += 60.0
    assert not town.directory.knows_all(["2"])


async def test_an_unknown_user_is_never_known_at_once_and_is_remembered_as_unknown(town: Town) -> None:
    assert await town.directory.find("77") is None
    assert not town.directory.knows_all(["77"])
    assert await town.directory.find("77") is None
    assert town.source.asked == [["77"]]


async def test_a_user_who_joins_is_found_once_the_short_memory_is_over(town: Town) -> None:
    assert await town.directory.find("77") is None
    town.source.answers["77"] = Profile(id="77")
    town.clock.now += 5.0
    assert await town.directory.find("77") == Profile(id="77")


async def test_while_the_directory_is_down_a_profile_past_its_time_is_used_up_to_a_bound(town: Town) -> None:
    await town.directory.find("2")
    town.source.go_down()
    town.clock.now += 60.0 + 599.0
    assert await town.directory.find("2") == ADA
    town.clock.now += 1.0
    with pytest.raises(DirectoryUnavailable):
        await town.directory.find("2")


async def test_while_the_directory_is_down_who_is_not_remembered_is_neither_known_nor_unknown(town: Town) -> None:
    await town.directory.find("77")
    town.source.go_down()
    town.clock.now += 5.0
    for user_id in ("1", "77"):
        with pytest.raises(DirectoryUnavailable):
            await town.directory.find(user_id)


async def test_while_it_is_left_alone_remembered_users_are_still_found(town: Town) -> None:
    await town.directory.find("2")
    town.source.go_down()
    for number in range(FAILURES_IN_A_ROW):
        with pytest.raises(DirectoryUnavailable):
            await town.directory.find(f"new{number}")
    asked = len(town.source.asked)
    town.clock.now += 0.1
    town.directory._cache.remember("2", ADA, town.clock.now - 60.0)
    assert await town.directory.find("2") == ADA
    assert len(town.source.asked) == asked


async def test_a_profile_that_was_broken_by_an_edit_is_used_as_it_was(town: Town) -> None:
    await town.directory.find("2")
    town.source.answers["2"] = ProfileInvalid("user '2': email")
    town.clock.now += 60.0
    assert await town.directory.find("2") == ADA


async def test_a_check_asks_even_if_everything_is_remembered(town: Town) -> None:
    await town.directory.check()
    await town.directory.check()
    assert town.source.asked == [["-"], ["-"]]
    town.source.go_down()
    with pytest.raises(DirectoryUnavailable, match="HTTP 500"):
        await town.directory.check()


async def test_closing_closes_the_source_and_answers_who_waits(town: Town) -> None:
    town.source.is_open.clear()
    waiting = asyncio.create_task(town.directory.find("2"))
    await town.source.was_asked.wait()
    await town.directory.close()
    assert town.source.is_closed
    with pytest.raises(DirectoryUnavailable):
        await waiting


def count(metric: str, result: str) -> float:
    value = registry.get_sample_value(f"tocsin_directory_{metric}_total", {"result": result})
    assert value is not None
    return value


async def test_metrics_tell_what_was_remembered_and_what_was_answered(town: Town) -> None:
    names = [("cache", word) for word in metrics.CACHE] + [("lookups", word) for word in metrics.LOOKUPS]
    before = {name: count(*name) for name in names}
    town.source.answers["9"] = ProfileInvalid("no")
    await asyncio.gather(*(town.directory.find(each) for each in ("2", "77", "9")), return_exceptions=True)
    assert town.directory.knows_all(["2"])
    town.source.go_down()
    town.clock.now += 60.0
    await town.directory.find("2")
    risen = {f"{metric} {word}": count(metric, word) - before[metric, word] for metric, word in names}
    assert risen == {
        "cache hit": 1,
        "cache miss": 4,
        "cache stale": 1,
        "lookups known": 1,
        "lookups unknown": 1,
        "lookups invalid": 1,
        "lookups unavailable": 1,
    }
