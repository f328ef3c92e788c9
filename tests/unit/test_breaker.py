"""The breaker, by example: when it opens, whom it lets through, and what closes it."""

from __future__ import annotations

import pytest

from tocsin_core.breaker import FAILURES_IN_A_ROW, PAUSE, Breaker, State


class Provider:
    """A breaker, and sends that take no time."""

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.now = 100.0
        self.sends = 0

    def fail(self, who: str | None = None, *, began_at: float | None = None, **throttle: float) -> bool:
        self.sends += 1
        return self.breaker.note_failure(
            self.now,
            began_at=self.now if began_at is None else began_at,
            subject_id=who or f"n{self.sends}",
            is_throttled=bool(throttle),
            retry_after_seconds=throttle.get("retry_after"),
            random=0.0,
        )

    def succeed(self, *, began_at: float | None = None) -> bool:
        return self.breaker.note_success(self.now, began_at=self.now if began_at is None else began_at)

    def open(self) -> None:
        for _ in range(FAILURES_IN_A_ROW):
            self.fail()

    def wait(self, seconds: float | None = None) -> None:
        self.now += self.breaker.pause_seconds(self.now) if seconds is None else seconds

    @property
    def state(self) -> State:
        return self.breaker.state(self.now)


@pytest.fixture
def provider() -> Provider:
    return Provider()


def test_failures_in_a_row_open_it_and_nothing_starts(provider: Provider) -> None:
    assert [provider.fail() for _ in range(FAILURES_IN_A_ROW)] == [False] * (FAILURES_IN_A_ROW - 1) + [True]
    assert provider.state is State.OPEN
    assert not provider.breaker.may_start(provider.now)


def test_a_success_in_between_begins_the_count_again(provider: Provider) -> None:
    for _ in range(20):
        for _ in range(FAILURES_IN_A_ROW - 1):
            provider.fail()
        provider.succeed()
    assert provider.state is State.CLOSED


def test_one_notification_alone_never_opens_it(provider: Provider) -> None:
    for _ in range(100):
        provider.fail("the one it chokes on")
    assert provider.breaker.may_start(provider.now)
    provider.fail("another")
    assert not provider.breaker.may_start(provider.now)


def test_a_throttle_opens_it_at_once_for_as_long_as_it_says(provider: Provider) -> None:
    assert provider.fail(retry_after=42.0)
    assert provider.breaker.pause_seconds(provider.now) == 42.0


def test_no_throttle_pauses_a_channel_for_days(provider: Provider) -> None:
    provider.fail(retry_after=1e9)
    assert provider.breaker.pause_seconds(provider.now) == PAUSE.max_retry_after_seconds


def test_a_throttle_that_is_said_while_it_is_open_makes_the_pause_longer_and_never_shorter(provider: Provider) -> None:
    provider.fail(retry_after=30.0)
    provider.fail(began_at=0.0, retry_after=60.0)
    assert provider.breaker.pause_seconds(provider.now) == 60.0
    provider.fail(began_at=0.0, retry_after=5.0)
    assert provider.breaker.pause_seconds(provider.now) == 60.0


def test_after_the_pause_one_probe_at_a_time_may_start(provider: Provider) -> None:
    provider.open()
    provider.wait()
    assert provider.state is State.HALF_OPEN
    provider.breaker.begin(provider.now, "probe")
    assert not provider.breaker.may_start(provider.now)
    provider.breaker.end("somebody from before")
    assert not provider.breaker.may_start(provider.now)
    provider.breaker.end("probe")
    assert provider.breaker.may_start(provider.now)


def test_a_probe_that_succeeds_closes_it(provider: Provider) -> None:
    provider.open()
    provider.wait()
    assert provider.succeed()
    assert provider.state is State.CLOSED
    assert provider.breaker.may_start(provider.now)


def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_success(provider: Provider) -> None:
    provider.open()
    pauses = []
    for _ in range(8):
        pauses.append(provider.breaker.pause_seconds(provider.now))
        provider.wait()
        provider.fail()
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    provider.wait()
    provider.succeed()
    provider.now += 1
    provider.open()
    assert provider.breaker.pause_seconds(provider.now) == 1.0


def test_sends_that_were_in_flight_when_it_opened_say_nothing_about_the_provider_now(provider: Provider) -> None:
    began_at = provider.now
    provider.wait(1)
    provider.open()
    pause = provider.breaker.pause_seconds(provider.now)
    assert not any(provider.fail(began_at=began_at) for _ in range(50))
    assert not provider.succeed(began_at=began_at)
    assert provider.breaker.pause_seconds(provider.now) == pause
    provider.wait()
    assert not provider.fail(began_at=began_at)
    assert provider.state is State.HALF_OPEN


def test_a_failure_from_before_the_outage_ended_does_not_begin_another(provider: Provider) -> None:
    provider.open()
    provider.wait()
    began_at = provider.now
    provider.wait(1)
    provider.succeed()
    assert not any(provider.fail(began_at=began_at) for _ in range(50))
    assert provider.state is State.CLOSED
