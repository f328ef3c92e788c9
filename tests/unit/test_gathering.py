from __future__ import annotations

from tocsin_core.gathering import BUSY_PER_SECOND, FULL_RECORDS, GATHER_SECONDS, QUIET_SECONDS, Gathering

BUSY_WINDOW = round(BUSY_PER_SECOND * GATHER_SECONDS)


def busy_since(now: float) -> Gathering:
    """Return one that a window full of records just made busy."""
    gathering = Gathering(now - GATHER_SECONDS)
    gathering.count(BUSY_WINDOW + 1, now=now)
    assert gathering.is_busy
    return gathering


def test_while_little_comes_nothing_waits() -> None:
    gathering = Gathering(0.0)
    assert gathering.is_due(1, 5, first_at=1.0, last_at=1.0, now=1.0)


def test_under_load_records_wait_for_company() -> None:
    gathering = busy_since(1.0)
    assert not gathering.is_due(3, 5, first_at=1.0, last_at=1.001, now=1.001)


def test_the_first_waits_no_longer_than_the_window() -> None:
    gathering = busy_since(1.0)
    last = 1.0 + GATHER_SECONDS
    assert gathering.is_due(3, 5, first_at=1.0, last_at=last, now=last + 1e-6)


def test_a_full_load_goes_at_once() -> None:
    assert busy_since(1.0).is_due(FULL_RECORDS, 5, first_at=1.0, last_at=1.0, now=1.0)


def test_when_everybody_waits_for_an_answer_nobody_waits_for_company() -> None:
    gathering = busy_since(1.0)
    after = 1.0 + QUIET_SECONDS + 1e-6
    assert gathering.is_due(3, 0, first_at=1.0, last_at=1.0, now=after)
    assert not gathering.is_due(3, 1, first_at=1.0, last_at=1.0, now=after), "an answer is due, and others may follow"
    assert not gathering.is_due(3, 0, first_at=1.0, last_at=after, now=after), "one came just now"


def test_one_large_request_in_a_quiet_time_is_no_load() -> None:
    gathering = Gathering(0.0)
    gathering.count(100, now=60.0)
    assert not gathering.is_busy


def test_load_is_judged_once_per_window_and_ends_by_itself() -> None:
    gathering = Gathering(0.0)
    for _ in range(10):
        gathering.count(BUSY_WINDOW, now=GATHER_SECONDS / 2)
    assert not gathering.is_busy, "the window is not over"
    gathering.count(1, now=GATHER_SECONDS * 1.1)
    assert gathering.is_busy
    gathering.count(1, now=GATHER_SECONDS * 2.2)
    assert not gathering.is_busy
