"""Who may listen: the address, the page, and what the plan of a drain leaves for streams."""

from __future__ import annotations

import pytest

from tocsin_core.settings import StreamSettings
from tocsin_ingestion import stream
from tocsin_ingestion.server import plan_drain
from tocsin_ingestion.sockets import RESTART, SLOW, Close
from tocsin_ingestion.stream import Refused, is_allowed, parse_user


@pytest.mark.parametrize(
    ("query", "user_id"),
    [(b"user=2", "2"), (b"user=a%20b%26c", "a b&c"), (b"user=%C3%A9", "é"), (b"x=1&user=2&y", "2")],
)
def test_the_user_is_read_from_the_address(query: bytes, user_id: str) -> None:
    assert parse_user(query) == user_id


@pytest.mark.parametrize("query", [b"", b"user", b"user=", b"user=1&user=2", b"User=2", b"user=%ff", b"user=\xff"])
def test_an_address_that_names_no_user_is_refused(query: bytes) -> None:
    with pytest.raises(Refused, match=r"user=ID"):
        parse_user(query)


@pytest.mark.parametrize(
    ("origin", "is_it"),
    [
        ("https://app.example.org", True),
        ("https://notify.example.org", True),
        ("https://app.example.org.evil.org", False),
        ("http://app.example.org", False),
        ("null", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_a_page_may_listen_from_our_own_host_or_a_listed_origin(origin: str, is_it: bool) -> None:
    settings = StreamSettings(allowed_origins=["https://app.example.org"])
    assert is_allowed(origin, "notify.example.org", settings) is is_it


def test_a_star_lets_every_page_listen() -> None:
    assert is_allowed("https://elsewhere.example.org", "h", StreamSettings(allowed_origins=["*"]))


def test_every_reason_fits_into_a_close_frame() -> None:
    closes = [RESTART, SLOW, *(value for value in vars(stream).values() if isinstance(value, Close))]
    assert all(len(close.reason.encode()) <= 123 for close in closes)


@pytest.mark.parametrize("budget_seconds", [0, 2, 20, 600])
def test_streams_get_half_of_a_drain_that_still_spends_exactly_its_budget(budget_seconds: float) -> None:
    plan = plan_drain(budget_seconds, has_streams=True)
    assert sum(plan) == pytest.approx(budget_seconds)
    assert plan.announce_seconds == budget_seconds / 2
    assert min(plan) >= 0
