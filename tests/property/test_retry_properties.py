"""Bounds of the retry decision, for every attempt number, every random number and every answer of a provider."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tocsin_core.retry import QUICK_ATTEMPTS, Backoff, Defer, GiveUp, Retry, Tier, build_tiers, decide_retry

BACKOFF = Backoff(first_seconds=0.5, factor=2.0, max_seconds=30.0, max_retry_after_seconds=300.0)
randoms = st.floats(0, 1, exclude_max=True)
tiers = st.lists(st.integers(1, 86_400), min_size=1, max_size=8).map(lambda delays: build_tiers("t", delays))


@given(attempts=st.integers(1, 10_000), random=randoms)
def test_a_delay_is_never_above_the_bound_nor_below_half_the_first_step(attempts: int, random: float) -> None:
    assert 0.25 <= BACKOFF.delay_seconds(attempts, random) <= 30.0


@given(attempts=st.integers(1, 1000), random=randoms)
def test_a_delay_never_shrinks_with_more_attempts(attempts: int, random: float) -> None:
    assert BACKOFF.delay_seconds(attempts + 1, random) >= BACKOFF.delay_seconds(attempts, random)


@given(
    attempts=st.integers(1, 200),
    max_attempts=st.integers(1, 100),
    is_retriable=st.booleans(),
    retry_after=st.none() | st.floats(0, 1e9),
    random=randoms,
)
def test_a_failure_is_retried_exactly_while_that_is_allowed_and_within_bounds(
    *, attempts: int, max_attempts: int, is_retriable: bool, retry_after: float | None, random: float
) -> None:
    decision = decide_retry(
        attempts=attempts,
        max_attempts=max_attempts,
        is_retriable=is_retriable,
        retry_after_seconds=retry_after,
        random=random,
        backoff=BACKOFF,
    )
    if is_retriable and attempts < max_attempts:
        assert isinstance(decision, Retry)
        assert min(retry_after or 0.0, 300.0) <= decision.after_seconds <= 300.0
    else:
        assert isinstance(decision, GiveUp)


@given(tiers=tiers, attempts=st.integers(0, 200), retry_after=st.none() | st.floats(0, 1e9), random=randoms)
def test_no_lane_waits_longer_than_a_moment_where_there_are_tiers_and_retry_after_is_respected_where_one_is_long_enough(
    *, tiers: tuple[Tier, ...], attempts: int, retry_after: float | None, random: float
) -> None:
    decision = decide_retry(
        attempts=attempts,
        max_attempts=1000,
        is_retriable=True,
        retry_after_seconds=retry_after,
        random=random,
        backoff=BACKOFF,
        tiers=tiers,
    )
    if isinstance(decision, Retry):
        assert attempts < QUICK_ATTEMPTS
        assert (retry_after or 0.0) <= decision.after_seconds <= 1.0
    else:
        assert isinstance(decision, Defer)
        assert decision.tier.delay_seconds >= min(retry_after or 0.0, tiers[-1].delay_seconds)


@given(tiers=tiers, attempts=st.integers(QUICK_ATTEMPTS, 200), random=randoms)
def test_a_later_failure_is_never_deferred_for_less(*, tiers: tuple[Tier, ...], attempts: int, random: float) -> None:
    def delay_after(number: int) -> int:
        decision = decide_retry(
            attempts=number,
            max_attempts=1000,
            is_retriable=True,
            retry_after_seconds=None,
            random=random,
            backoff=BACKOFF,
            tiers=tiers,
        )
        assert isinstance(decision, Defer)
        return decision.tier.delay_seconds

    assert delay_after(attempts + 1) >= delay_after(attempts)
