"""Token buckets: what is granted, what headers say of it, and who is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gates import Clock
from tocsin_ingestion.auth.gate import Caller, Grant
from tocsin_ingestion.auth.limits import Bucket, Limiter
from tocsin_ingestion.problems import RATE_LIMITED, Problem


def test_a_burst_is_granted_at_once_and_the_rest_at_the_rate() -> None:
    clock = Clock()
    bucket = Bucket(2.0, 5, clock)
    assert [bucket.take(3), bucket.take(3), bucket.take(1)] == [3, 2, 0]
    clock.now += 0.5
    assert [bucket.take(1), bucket.take(1)] == [1, 0]


def test_the_headers_tell_the_burst_what_is_left_and_when_it_is_whole_again() -> None:
    clock = Clock()
    bucket = Bucket(2.0, 5, clock)
    bucket.take(4)
    told = dict(bucket.build_headers())
    assert told == {"ratelimit-limit": "5", "ratelimit-remaining": "1", "ratelimit-reset": "2"}
    clock.now += 100
    assert dict(bucket.build_headers()) == told | {"ratelimit-remaining": "5", "ratelimit-reset": "0"}


def test_the_headers_as_lines_say_the_same() -> None:
    bucket = Bucket(2.0, 5, Clock())
    bucket.take(4)
    assert bucket.write_headers() == b"\r\nratelimit-limit: 5\r\nratelimit-remaining: 1\r\nratelimit-reset: 2"


@given(
    per_second=st.floats(0.01, 1e6),
    burst=st.integers(1, 10_000),
    steps=st.lists(st.tuples(st.floats(0, 1_000), st.integers(1, 2_000)), max_size=50),
)
def test_no_history_gets_more_than_the_burst_and_the_rate(
    per_second: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    clock = Clock(0.0)
    bucket = Bucket(per_second, burst, clock)
    granted = 0
    for pause_seconds, wanted in steps:
        clock.now += pause_seconds
        got = bucket.take(wanted)
        granted += got
        assert 0 <= got <= wanted
        assert granted <= burst + per_second * clock.now * (1 + 1e-9) + 1e-6


@given(per_second=st.floats(0.01, 1e6), burst=st.integers(1, 10_000), taken=st.integers(0, 20_000))
def test_who_waits_as_long_as_told_is_granted_one(per_second: float, burst: int, taken: int) -> None:
    clock = Clock(0.0)
    bucket = Bucket(per_second, burst, clock)
    bucket.take(taken)
    clock.now += bucket.wait_seconds + 1e-3
    assert bucket.take(1) == 1


def test_callers_do_not_take_from_each_other_and_the_longest_silent_are_forgotten() -> None:
    limiter = Limiter(1.0, 1, max_callers=2, clock=Clock())
    assert limiter.find("a").take(1) == 1
    assert limiter.find("b").take(1) == 1
    assert limiter.find("a").take(1) == 0
    limiter.find("c")  # b was silent the longest
    assert limiter.find("a").take(1) == 0
    assert limiter.find("b").take(1) == 1


def test_a_batch_claims_its_items_once_however_often_it_is_looked_at() -> None:
    bucket = Bucket(1.0, 3, Clock())
    grant = Grant(Caller("a"), bucket)
    grant.claim_first()
    expected = ["x", "x", "x", RATE_LIMITED, RATE_LIMITED]
    for _ in range(2):  # the hot path, and then the routes
        items = grant.limit(["x"] * 5)
        assert [item.kind if isinstance(item, Problem) else item for item in items] == expected
    assert bucket.take(1) == 0


def test_without_a_limit_everything_is_granted_and_nothing_is_said() -> None:
    grant = Grant(Caller("a"), None)
    grant.claim_first()
    assert grant.limit(["x"] * 5) == ["x"] * 5
    assert grant.build_headers() == []
