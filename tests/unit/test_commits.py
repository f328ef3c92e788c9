"""Commits: from where each channel stands to what Kafka remembers, and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tocsin_core.commits import NO_CHANNEL, Commit, build_commit, resume_positions

names = st.text(min_size=1, max_size=63)
positions = st.dictionaries(names, st.integers(0, 2**62), max_size=16).map(lambda each: {**each, NO_CHANNEL: 7})


@given(positions)
def test_every_channel_resumes_where_it_stood(stands: dict[str, int]) -> None:
    assert resume_positions(stands, build_commit(stands)) == stands


@given(positions)
def test_nothing_below_the_committed_offset_is_unfinished(stands: dict[str, int]) -> None:
    assert build_commit(stands).offset == min(stands.values())


def test_where_all_stand_together_there_is_nothing_to_add() -> None:
    assert build_commit({"a": 5, NO_CHANNEL: 5}) == Commit(5, "")


def test_a_new_channel_begins_where_the_foremost_stands() -> None:
    commit = build_commit({"mail": 5, "hook": 90, NO_CHANNEL: 90})
    assert resume_positions(["mail", "hook", "push"], commit)["push"] == 90


def test_what_a_channel_that_is_gone_left_is_looked_at_once_more() -> None:
    commit = build_commit({"mail": 5, "hook": 90, NO_CHANNEL: 90})
    assert resume_positions(["hook"], commit) == {"hook": 90, NO_CHANNEL: 5}


def test_metadata_that_somebody_else_wrote_means_nothing() -> None:
    garbage = ("", "x", "[]", "{}", '{"a":"1"}', "\x00")
    numbers = ('{"ts":1712345678}', '{"a":-1,"":0}', '{"":9}', '{"a":0,"b":9}')
    for metadata in (*garbage, *numbers):
        assert resume_positions(["a"], Commit(5, metadata)) == {"a": 5, NO_CHANNEL: 5}


def test_sixteen_long_names_fit_into_what_kafka_keeps() -> None:
    stands = {f"{number:063}": number * 2**50 for number in range(16)}
    assert len(build_commit({**stands, NO_CHANNEL: 2**60}).metadata) < 4096
