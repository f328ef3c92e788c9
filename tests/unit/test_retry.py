"""The retry decision, by example."""

from __future__ import annotations

import pytest

from tocsin_core.retry import Backoff, GiveUp, Reason, Retry, decide_retry

BACKOFF = Backoff(first_seconds=1.0, factor=2.0, max_seconds=10.0, max_retry_after_seconds=60.0)


def decide(attempts: int = 1, *, is_retriable: bool = True, retry_after_seconds: float | None = None) -> Retry | GiveUp:
    return decide_retry(
        attempts=attempts,
        max_attempts=5,
        is_retriable=is_retriable,
        retry_after_seconds=retry_after_seconds,
        random=0.0,
        backoff=BACKOFF,
    )


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0)])
def test_the_wait_doubles_with_each_failure(attempts: int, seconds: float) -> None:
    assert decide(attempts) == Retry(seconds)


def test_jitter_spreads_over_the_upper_half_of_the_step() -> None:
    assert BACKOFF.delay_seconds(1, 0.0) == 0.5
    assert BACKOFF.delay_seconds(1, 0.5) == 0.75


def test_the_wait_stops_growing_at_its_bound() -> None:
    assert BACKOFF.delay_seconds(100, 0.0) == 5.0


def test_the_last_allowed_attempt_is_not_followed_by_another() -> None:
    assert decide(5) == GiveUp(Reason.RETRIES_EXHAUSTED)


def test_a_permanent_failure_is_not_retried() -> None:
    assert decide(is_retriable=False) == GiveUp(Reason.PROVIDER_PERMANENT)


def test_a_longer_retry_after_replaces_the_backoff() -> None:
    assert decide(retry_after_seconds=20.0) == Retry(20.0)


def test_a_shorter_retry_after_does_not_hurry_the_backoff() -> None:
    assert decide(4, retry_after_seconds=0.1) == Retry(4.0)


def test_an_endless_retry_after_is_bounded() -> None:
    assert decide(retry_after_seconds=1e9) == Retry(60.0)
