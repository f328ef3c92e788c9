from __future__ import annotations

import math

from tocsin_operator.scaling.schedule import Schedule


def test_a_new_key_is_due_at_once() -> None:
    assert Schedule().is_due("a", 3.0)


def test_a_key_is_due_once_in_its_interval() -> None:
    schedule = Schedule()
    schedule.note_done("a", 12.0, 5)
    assert not schedule.is_due("a", 14.9)
    assert schedule.is_due("a", 15.0)


def test_keys_with_one_interval_come_due_together_whenever_they_were_last_handled() -> None:
    schedule = Schedule()
    schedule.note_done("a", 11.0, 5)
    schedule.note_done("b", 14.9, 5)
    assert [schedule.is_due(key, 15.0) for key in "ab"] == [True, True]


def test_a_key_that_fails_waits_longer_each_time_and_no_longer_than_its_promise() -> None:
    schedule, now, waits = Schedule(), 0.0, []
    for _ in range(6):
        schedule.is_due("a", now)
        schedule.note_failed("a", now, 5, promise_seconds=30)
        waits.append(schedule.seconds_until_next(now))
        now += waits[-1]
    assert waits == [5, 10, 20, 30, 30, 30]


def test_one_success_ends_the_waiting() -> None:
    schedule = Schedule()
    for _ in range(5):
        schedule.note_failed("a", 0, 5, promise_seconds=60)
    schedule.note_done("a", 100, 5)
    schedule.note_failed("a", 105, 5, promise_seconds=60)
    assert schedule.seconds_until_next(105) == 5


def test_keys_that_are_gone_are_forgotten() -> None:
    schedule = Schedule()
    schedule.note_done("a", 0, 5)
    schedule.keep_only(set())
    assert schedule.seconds_until_next(0) == math.inf
