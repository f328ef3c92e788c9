"""The retry decision and its tiers, by example."""

from __future__ import annotations

import pytest

from tocsin_core.retry import (
    Backoff,
    Defer,
    GiveUp,
    Reason,
    Retry,
    Tier,
    build_tiers,
    choose_tier,
    decide_retry,
    name_retry_topic,
)

BACKOFF = Backoff(first_seconds=1.0, factor=2.0, max_seconds=10.0, max_retry_after_seconds=60.0)
TIERS = build_tiers("orders")
SHORT, MIDDLE, LONG = TIERS


def decide(
    attempts: int = 1,
    *,
    is_retriable: bool = True,
    retry_after_seconds: float | None = None,
    tiers: tuple[Tier, ...] = (),
    max_attempts: int = 5,
) -> Retry | Defer | GiveUp:
    return decide_retry(
        attempts=attempts,
        max_attempts=max_attempts,
        is_retriable=is_retriable,
        retry_after_seconds=retry_after_seconds,
        random=0.0,
        backoff=BACKOFF,
        tiers=tiers,
    )


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0)])
def test_the_wait_doubles_with_each_failure(attempts: int, seconds: float) -> None:
    assert decide(attempts) == Retry(seconds)


def test_jitter_spreads_over_the_upper_half_of_the_step() -> None:
    assert BACKOFF.delay_seconds(1, 0.0) == 0.5
    assert BACKOFF.delay_seconds(1, 0.5) == 0.75


def test_the_wait_stops_growing_at_its_bound() -> None:
    assert BACKOFF.delay_seconds(100, 0.0) == 5.0


@pytest.mark.parametrize("tiers", [(), TIERS])
def test_the_last_allowed_attempt_is_not_followed_by_another(tiers: tuple[Tier, ...]) -> None:
    assert decide(5, tiers=tiers) == GiveUp(Reason.RETRIES_EXHAUSTED)


@pytest.mark.parametrize("tiers", [(), TIERS])
def test_a_permanent_failure_is_not_retried(tiers: tuple[Tier, ...]) -> None:
    assert decide(is_retriable=False, tiers=tiers) == GiveUp(Reason.PROVIDER_PERMANENT)


def test_a_longer_retry_after_replaces_the_backoff() -> None:
    assert decide(retry_after_seconds=20.0) == Retry(20.0)


def test_a_shorter_retry_after_does_not_hurry_the_backoff() -> None:
    assert decide(4, retry_after_seconds=0.1) == Retry(4.0)


def test_an_endless_retry_after_is_bounded() -> None:
    assert decide(retry_after_seconds=1e9) == Retry(60.0)


def test_the_default_five_attempts_are_two_quick_ones_and_one_from_each_tier() -> None:
    decisions = [decide(attempts, tiers=TIERS) for attempts in range(1, 6)]
    assert decisions == [Retry(0.5), Defer(SHORT), Defer(MIDDLE), Defer(LONG), GiveUp(Reason.RETRIES_EXHAUSTED)]


def test_further_attempts_come_from_the_longest_tier() -> None:
    assert decide(50, tiers=TIERS, max_attempts=100) == Defer(LONG)


@pytest.mark.parametrize(
    ("attempts", "retry_after_seconds", "expected"),
    [
        (1, 0.9, Retry(0.9)),
        (1, 1.1, Defer(SHORT)),
        (1, 10.0, Defer(SHORT)),
        (1, 11.0, Defer(MIDDLE)),
        (3, 5.0, Defer(MIDDLE)),
        (2, 120.0, Defer(LONG)),
        (2, 1e9, Defer(LONG)),
    ],
)
def test_the_smallest_tier_that_respects_retry_after_is_chosen_and_never_a_shorter_one_than_is_due(
    attempts: int, retry_after_seconds: float, expected: Retry | Defer
) -> None:
    assert decide(attempts, retry_after_seconds=retry_after_seconds, tiers=TIERS) == expected


def test_an_attempt_that_cost_nothing_is_deferred_to_the_first_tier() -> None:
    assert decide(0, retry_after_seconds=2.0, tiers=TIERS) == Defer(SHORT)


@pytest.mark.parametrize(
    ("delay_seconds", "name"), [(10, "t.retry.10s"), (60, "t.retry.1m"), (90, "t.retry.90s"), (7200, "t.retry.2h")]
)
def test_a_retry_topic_is_named_by_its_delay(delay_seconds: int, name: str) -> None:
    assert name_retry_topic("t", delay_seconds) == name


def test_tiers_are_in_the_order_of_their_delays_and_each_is_there_once() -> None:
    assert build_tiers("t", [60, 1, 60]) == (Tier("t.retry.1s", 1), Tier("t.retry.1m", 60))


def test_what_is_longer_than_every_tier_waits_in_the_longest() -> None:
    assert choose_tier(TIERS, at_least_seconds=10_000) == LONG
