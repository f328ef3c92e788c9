"""Bounds of the backoff, for every attempt number and every random number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tocsin_core.retry import Backoff, GiveUp, Retry, decide_retry

BACKOFF = Backoff(first_seconds=0.5, factor=2.0, max_seconds=30.0, max_retry_after_seconds=300.0)
randoms = st.floats(0, 1, exclude_max=True)


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
