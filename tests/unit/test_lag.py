from __future__ import annotations

import pytest

from tocsin_core.lag import (
    EndOffsets,
    PartitionOffsets,
    append_end_offsets,
    measure_arrivals_per_second,
    measure_lag_seconds,
)


def history(*samples: tuple[float, int]) -> tuple[EndOffsets, ...]:
    return tuple(EndOffsets(seconds, (end,)) for seconds, end in samples)


def test_lag_is_what_lies_between_the_commit_and_the_end() -> None:
    assert PartitionOffsets(0, 0, 100, 40).lag == 60


def test_lag_of_a_group_without_a_commit_counts_from_the_start_of_the_log() -> None:
    assert PartitionOffsets(0, 30, 100, None).lag == 70


def test_lag_does_not_count_records_that_retention_removed() -> None:
    assert PartitionOffsets(0, 90, 100, 10).lag == 10


def test_lag_is_zero_when_the_commit_was_read_after_the_end() -> None:
    assert PartitionOffsets(0, 0, 100, 105).lag == 0


def test_lag_in_seconds_is_zero_when_caught_up() -> None:
    assert measure_lag_seconds(0, 20, history((0, 0), (10, 20))) == (0.0, False)


def test_lag_in_seconds_is_interpolated_between_two_looks() -> None:
    assert measure_lag_seconds(0, 15, history((0, 0), (10, 10), (20, 20))) == (5.0, False)


def test_lag_in_seconds_starts_when_the_end_moved_on_and_not_when_it_first_stood_there() -> None:
    assert measure_lag_seconds(0, 10, history((0, 0), (10, 10), (20, 10), (30, 20))) == (10.0, False)


def test_lag_in_seconds_beyond_the_history_is_a_lower_bound() -> None:
    assert measure_lag_seconds(0, 3, history((10, 10), (20, 20))) == (10.0, True)


def test_lag_in_seconds_does_not_depend_on_the_rate() -> None:
    slow = measure_lag_seconds(0, 15, history((0, 0), (10, 10), (20, 20)))
    fast = measure_lag_seconds(0, 15_000, history((0, 0), (10, 10_000), (20, 20_000)))
    assert slow == fast


def test_the_history_is_bounded_however_long_it_runs() -> None:
    kept: tuple[EndOffsets, ...] = ()
    for second in range(2_000):
        kept = append_end_offsets(kept, EndOffsets(second, (second,)), horizon_seconds=240, fine_seconds=6)
    assert len(kept) < 60
    assert kept[-1].time_seconds - kept[0].time_seconds == pytest.approx(240, abs=6)


def test_the_history_keeps_all_of_the_recent_past() -> None:
    kept: tuple[EndOffsets, ...] = ()
    for second in range(500):
        kept = append_end_offsets(kept, EndOffsets(second, (second,)), horizon_seconds=240, fine_seconds=6)
    assert [sample.time_seconds for sample in kept[-7:]] == [493, 494, 495, 496, 497, 498, 499]


def test_lag_in_seconds_stays_exact_over_a_thinned_history_of_a_steady_flow() -> None:
    kept: tuple[EndOffsets, ...] = ()
    for second in range(500):
        kept = append_end_offsets(kept, EndOffsets(second, (second * 7,)), horizon_seconds=240, fine_seconds=6)
    assert measure_lag_seconds(0, (499 - 123) * 7, kept).seconds == pytest.approx(123)


def test_a_new_partition_joins_the_history_with_nothing_in_it() -> None:
    kept = append_end_offsets(history((0, 5)), EndOffsets(10, (8, 4)), horizon_seconds=100, fine_seconds=10)
    assert kept == (EndOffsets(0, (5, 0)), EndOffsets(10, (8, 4)))


def test_arrivals_are_a_mean_over_the_span() -> None:
    assert measure_arrivals_per_second(history((0, 0), (10, 100), (20, 400)), span_seconds=10) == 30.0


def test_arrivals_are_unknown_from_a_single_look() -> None:
    assert measure_arrivals_per_second(history((0, 0)), span_seconds=10) is None


def test_arrivals_are_unknown_while_too_little_time_has_passed() -> None:
    looks = history((0, 0), (4, 100))
    assert measure_arrivals_per_second(looks, span_seconds=10, shortest_seconds=5) is None
