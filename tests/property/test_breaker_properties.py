"""The breaker under any history: it never lets a crowd at a provider that is down, and never stays shut for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tocsin_core.breaker import FAILURES_IN_A_ROW, PAUSE, Breaker, State

outcomes = st.sampled_from(["ok", "fail", "throttle", "nothing"])
histories = st.lists(st.tuples(outcomes, st.floats(0, 100), st.floats(0, 1e6)), max_size=60)


def play(breaker: Breaker, history: list[tuple[str, float, float]]) -> float:
    now = 0.0
    for number, (outcome, wait_seconds, retry_after_seconds) in enumerate(history):
        now += wait_seconds
        if not breaker.may_start(now):
            continue
        delivery = object()
        breaker.begin(now, delivery)
        if outcome == "ok":
            breaker.note_success(now, began_at=now)
        elif outcome != "nothing":
            breaker.note_failure(
                now,
                began_at=now,
                subject_id=str(number),
                is_throttled=outcome == "throttle",
                retry_after_seconds=retry_after_seconds if outcome == "throttle" else None,
                random=0.5,
            )
        breaker.end(delivery)
    return now


@given(histories)
def test_whatever_happened_a_probe_may_start_within_the_longest_pause(history: list[tuple[str, float, float]]) -> None:
    breaker = Breaker()
    now = play(breaker, history)
    assert breaker.pause_seconds(now) <= PAUSE.max_retry_after_seconds
    assert breaker.may_start(now + PAUSE.max_retry_after_seconds)


@given(histories)
def test_one_success_is_always_enough(history: list[tuple[str, float, float]]) -> None:
    breaker = Breaker()
    now = play(breaker, history) + PAUSE.max_retry_after_seconds
    breaker.note_success(now, began_at=now)
    assert breaker.state(now) is State.CLOSED


@given(histories, st.integers(1, 500))
def test_an_outage_of_any_length_meets_few_sends(history: list[tuple[str, float, float]], seconds: int) -> None:
    breaker = Breaker()
    now = play(breaker, history)
    sends = 0
    for tick in range(seconds * 10):  # a channel that always has work, and a provider that always fails at once
        moment = now + tick / 10
        if breaker.may_start(moment):
            sends += 1
            breaker.note_failure(
                moment,
                began_at=moment,
                subject_id=str(tick),
                is_throttled=False,
                retry_after_seconds=None,
                random=0.0,
            )
    growing = 5  # pauses of 1, 2, 4, 8 and 16 s, then of 30 s
    assert sends <= FAILURES_IN_A_ROW + growing + seconds / 30 + 1
