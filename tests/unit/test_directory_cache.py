"""What is remembered of users, for how long, and of how many. The time is a number that is passed in."""

from __future__ import annotations

from directories import ADA
from tocsin_core.directory.cache import ProfileCache
from tocsin_core.settings import UsersCacheSettings


def build(**changes: float) -> ProfileCache:
    settings = {"entries": 3, "ttl_seconds": 60, "unknown_ttl_seconds": 5, "stale_seconds": 600} | changes
    return ProfileCache(UsersCacheSettings.model_validate(settings))


def test_an_answer_is_fresh_until_its_time_is_over() -> None:
    cache = build()
    cache.remember("2", ADA, 100.0)
    entry = cache.find_fresh("2", 159.9)
    assert entry is not None
    assert entry.profile == ADA
    assert cache.find_fresh("2", 160.0) is None


def test_that_there_is_no_such_user_is_believed_for_a_shorter_time() -> None:
    cache = build()
    cache.remember("7", None, 100.0)
    entry = cache.find_fresh("7", 104.9)
    assert entry is not None
    assert entry.profile is None
    assert cache.find_fresh("7", 105.0) is None


def test_without_a_time_for_unknown_users_they_are_always_asked_about() -> None:
    cache = build(unknown_ttl_seconds=0)
    cache.remember("7", None, 100.0)
    assert cache.find_fresh("7", 100.0) is None


def test_a_profile_is_good_enough_for_an_outage_up_to_a_bound() -> None:
    cache = build()
    cache.remember("2", ADA, 100.0)
    assert cache.find_stale("2", 759.9) == ADA
    assert cache.find_stale("2", 760.0) is None


def test_what_is_known_of_an_unknown_user_is_never_good_enough_for_an_outage() -> None:
    cache = build()
    cache.remember("7", None, 100.0)
    assert cache.find_stale("7", 100.0) is None


def test_a_user_who_has_left_is_not_remembered_as_who_they_were() -> None:
    cache = build()
    cache.remember("2", ADA, 100.0)
    cache.remember("2", None, 170.0)
    assert cache.find_stale("2", 180.0) is None


def test_the_one_not_asked_for_longest_makes_room() -> None:
    cache = build()
    for user_id in ("a", "b", "c"):
        cache.remember(user_id, ADA, 100.0)
    assert cache.find_fresh("a", 101.0)
    cache.remember("d", ADA, 102.0)
    assert len(cache) == 3
    assert [user_id for user_id in "abcd" if cache.find_fresh(user_id, 103.0)] == ["a", "c", "d"]


def test_a_user_remembered_again_takes_no_second_place() -> None:
    cache = build()
    for _ in range(9):
        cache.remember("2", ADA, 100.0)
    assert len(cache) == 1
