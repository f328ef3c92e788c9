"""Pace: how much may be under way so that a hand-over fits its budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tocsin_consumer.pace import Pace


def learned(seconds: float, *, guaranteed_slots: int = 10, budget_seconds: float = 30.0) -> Pace:
    pace = Pace({"a": guaranteed_slots}, budget_seconds=budget_seconds, max_gap=1000)
    for _ in range(200):
        pace.observe("a", seconds)
    return pace


def test_a_lane_holds_what_fits_into_half_the_budget_one_after_the_other() -> None:
    assert learned(0.1).lane_limit("a") in (149, 150)


def test_the_partitions_share_what_fits_into_half_the_budget_by_the_slots_that_are_sure() -> None:
    assert learned(0.5).gap_limit("a", 3) in (99, 100)


def test_deliveries_longer_than_the_budget_still_go_on_one_at_a_time() -> None:
    assert learned(60.0).lane_limit("a") == 1
    assert learned(600.0).gap_limit("a", 12) == 1


def test_a_budget_of_nothing_still_lets_one_through() -> None:
    assert learned(0.1, budget_seconds=0.0).gap_limit("a", 1) == 1


def test_memory_bounds_what_fast_deliveries_would_allow() -> None:
    assert learned(0.0001).lane_limit("a") == 1000


@given(seconds=st.floats(0.0, 1e6), partitions=st.integers(0, 1000))
def test_limits_are_always_between_one_and_the_bound(seconds: float, partitions: int) -> None:
    pace = learned(seconds)
    assert 1 <= pace.lane_limit("a") <= 1000
    assert 1 <= pace.gap_limit("a", partitions) <= 1000
