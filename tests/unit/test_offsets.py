"""The offset tracker, by example; tests/property compares it with a model."""

from __future__ import annotations

import pytest

from tocsin_core.offsets import OffsetTracker


@pytest.fixture
def tracker() -> OffsetTracker:
    tracker = OffsetTracker()
    for offset in (10, 11, 12):
        tracker.admit(offset)
    return tracker


def test_nothing_is_committed_before_something_is_complete(tracker: OffsetTracker) -> None:
    assert tracker.position is None


def test_a_completion_behind_an_unfinished_record_does_not_move_the_position(tracker: OffsetTracker) -> None:
    tracker.complete(11)
    tracker.complete(12)
    assert tracker.position is None
    assert tracker.finished_beyond == 2


def test_the_last_missing_completion_moves_the_position_past_all(tracker: OffsetTracker) -> None:
    tracker.complete(11)
    tracker.complete(12)
    tracker.complete(10)
    assert tracker.position == 13
    assert tracker.gap == 0


def test_a_hole_in_the_log_is_not_waited_for() -> None:
    tracker = OffsetTracker()
    tracker.admit(5)
    tracker.admit(9)
    tracker.complete(5)
    tracker.complete(9)
    assert tracker.position == 10


def test_an_offset_that_does_not_rise_is_refused(tracker: OffsetTracker) -> None:
    with pytest.raises(ValueError, match="offset 12 admitted after 12"):
        tracker.admit(12)


def test_a_drain_lets_lower_offsets_start_and_higher_ones_not(tracker: OffsetTracker) -> None:
    tracker.start(11)
    tracker.begin_drain()
    assert tracker.may_start(10)
    assert not tracker.may_start(12)
    with pytest.raises(ValueError, match="offset 12 started"):
        tracker.start(12)


def test_a_drain_takes_in_nothing_new(tracker: OffsetTracker) -> None:
    tracker.begin_drain()
    with pytest.raises(ValueError, match="handed over"):
        tracker.admit(13)


def test_a_drain_with_nothing_started_is_over_at_once(tracker: OffsetTracker) -> None:
    assert not tracker.is_drained
    tracker.begin_drain()
    assert tracker.is_drained


def test_a_drain_waits_for_what_lies_below_the_highest_started_offset(tracker: OffsetTracker) -> None:
    tracker.start(11)
    tracker.begin_drain()
    tracker.complete(11)
    assert not tracker.is_drained
    tracker.complete(10)
    assert tracker.is_drained
    assert tracker.position == 12


def test_a_fence_between_looking_and_starting_is_no_mistake(tracker: OffsetTracker) -> None:
    assert tracker.may_start(10)
    tracker.fence()
    tracker.start(10)
    tracker.admit(13)
    tracker.skip(14)
    assert tracker.position is None


def test_a_completion_after_the_fence_changes_nothing(tracker: OffsetTracker) -> None:
    tracker.start(10)
    tracker.fence()
    tracker.complete(10)
    assert tracker.position is None
    assert not tracker.may_start(10)
