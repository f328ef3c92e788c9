"""An assignment's counts, and when fetching rests."""

from __future__ import annotations

import pytest

from tocsin_core.assignment import Assignment, decide_pause, size_bytes
from tocsin_core.message import Record

RECORD = Record("t", 0, 0, 0, b"key", b"value", (("name", b"x"), ("none", None)))


def holding(records: int, *, is_paused: bool = False) -> Assignment:
    assignment = Assignment("t", 0, 1)
    for _ in range(records):
        assignment.receive(RECORD)
    assignment.is_paused = is_paused
    return assignment


def test_a_record_measures_its_key_value_and_headers() -> None:
    assert size_bytes(RECORD) == 3 + 5 + 4 + 1 + 4


def test_what_is_received_and_not_finished_is_held() -> None:
    assignment = holding(3)
    assignment.take(size_bytes(RECORD))
    assert (assignment.held_records, assignment.held_bytes) == (2, 2 * size_bytes(RECORD))


@pytest.mark.parametrize(
    ("records", "is_paused", "should_rest"),
    [(99, False, False), (100, False, True), (99, True, True), (50, True, True), (49, True, False)],
)
def test_fetching_rests_from_the_bound_on_until_half_is_worked_off(
    *, records: int, is_paused: bool, should_rest: bool
) -> None:
    assignment = holding(records, is_paused=is_paused)
    assert decide_pause(assignment, max_records=100, max_bytes=10**9) == should_rest


def test_few_large_records_make_fetching_rest_too() -> None:
    assert decide_pause(holding(2), max_records=100, max_bytes=2 * size_bytes(RECORD))


@pytest.mark.parametrize(
    ("offset", "timestamp_ms", "is_same"), [(5, 1000, True), (6, 7777, True), (5, 2000, False), (0, 1000, False)]
)
def test_a_log_is_known_again_by_where_it_began_and_when(*, offset: int, timestamp_ms: int, is_same: bool) -> None:
    assignment = Assignment("t", 0, 1)
    for number in (5, 6, 7):
        assignment.receive(Record("t", 0, number, 1000, b"", b"", ()))
    assert assignment.is_same_log(Record("t", 0, offset, timestamp_ms, b"", b"", ()), None) is is_same


def test_an_end_that_a_later_leader_wrote_anew_is_another_log() -> None:
    assignment = Assignment("t", 0, 1)
    for number in (5, 6, 7):
        assignment.receive(Record("t", 0, number, 1000, b"", b"", ()), 3)
    again = Record("t", 0, 6, 1000, b"", b"", ())
    assert assignment.is_same_log(again, 3)
    assert not assignment.is_same_log(again, 4)
