"""The picture is put into words and little charts."""

from __future__ import annotations

from rich.console import Console

from tocsin_cli.dev.ledger import Count
from tocsin_cli.dev.picture import (
    Backlog,
    Fleet,
    Picture,
    draw_bars,
    draw_counts,
    format_backlog,
    format_fleet,
    format_line,
)
from tocsin_cli.dev.screen import LiveScreen

PICTURE = Picture(
    phase="running",
    seconds=12.0,
    count=Count(accepted=20, delivered=18, dead_lettered=1, dropped=0, open=1, duplicates=0),
    refused=3,
    backlog=Backlog(1, 0.25),
    fleet=Fleet(ready=1, running=2, wanted=3, lowest=1, highest=12),
    decision="all is well",
    example="curl ...",
)


def test_a_chart_scales_to_its_highest_value() -> None:
    assert draw_bars([0, 50, 100], 10) == "▁▅█"


def test_a_chart_averages_what_does_not_fit() -> None:
    assert draw_bars([0, 0, 100, 100], 2) == "▁█"


def test_a_chart_without_room_is_empty() -> None:
    assert draw_bars([1, 2], 0) == ""


def test_counts_are_drawn_as_digits() -> None:
    assert draw_counts([1, 4, 12], 10) == "14+"


def test_lag_is_said_in_records_and_age() -> None:
    assert format_backlog(Backlog(1200, 3.04)) == "1,200 waiting, the oldest for 3.0 s"
    assert format_backlog(Backlog(0, 0.0)) == "none"
    assert format_backlog(Backlog()) == "unknown"


def test_the_fleet_says_where_it_is_going() -> None:
    assert format_fleet(PICTURE.fleet) == "2 (1 ready), going to 3 of 1 to 12"


def test_a_line_says_everything_at_once() -> None:
    text = format_line(PICTURE, 5.0)
    assert text == (
        "[   12 s] running · accepted 20 (5/s) · delivered 18 · dead-lettered 1 · refused 3 · "
        "lag 1 waiting, the oldest for 0.2 s · consumers 2 (1 ready), going to 3 of 1 to 12"
    )


def test_the_live_panel_shows_numbers_decision_and_what_to_try() -> None:
    console = Console(force_terminal=True, width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        screen = LiveScreen("tocsin dev", console)
        screen.show(PICTURE)
        screen.close()
    text = console.export_text()
    assert all(part in text for part in ("accepted", "20", "all is well", "curl ...", "1 dead-lettered", "3 refused"))
