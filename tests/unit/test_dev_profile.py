"""The load profile says how much is due by when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tocsin_cli.dev.profile import Profile, Step, build_demo_profile, build_steady_profile


def test_the_demo_is_a_fifth_low_half_at_the_peak_and_the_rest_low() -> None:
    profile = build_demo_profile(60, 300)
    assert profile.steps == (Step(12.0, 60.0), Step(30.0, 300.0), Step(18.0, 60.0))
    assert profile.total == 12 * 60 + 30 * 300 + 18 * 60


def test_nothing_is_due_before_the_start() -> None:
    assert build_steady_profile(10, 5).due(-1.0) == 0
    assert build_steady_profile(10, 5).due(0.0) == 0


def test_nothing_more_is_due_after_the_end() -> None:
    assert build_steady_profile(10, 5).due(1000.0) == 50


def test_the_rate_is_that_of_the_current_step() -> None:
    profile = build_demo_profile(10, 100)
    assert [profile.per_second(at) for at in (0.0, 2.0, 6.9, 7.0, 10.0)] == [20.0, 100.0, 100.0, 20.0, 0.0]


@given(
    steps=st.lists(st.builds(Step, st.floats(0, 100), st.floats(0, 1000)), max_size=5),
    first=st.floats(0, 600),
    second=st.floats(0, 600),
)
def test_what_is_due_never_falls(steps: list[Step], first: float, second: float) -> None:
    profile = Profile(tuple(steps))
    assert profile.due(min(first, second)) <= profile.due(max(first, second)) <= profile.total
