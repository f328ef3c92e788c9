"""Where the picture goes: a live panel in a terminal, plain lines anywhere else.

A port with two hands instead of rich's own fallback: without a terminal rich would print whole panels again and again,
and a pipe wants one fact per line. What the Log channel delivers is data, and goes to a pipe as it is.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text

from tocsin_cli.dev.picture import (
    History,
    Picture,
    draw_bars,
    draw_counts,
    format_backlog,
    format_fleet,
    format_line,
    format_seconds,
)
from tocsin_cli.dev.receipts import LogLine

REMARKS_SHOWN = 6
LATEST_SHOWN = 4
LINE_EVERY_SECONDS = 2.0
PROGRESS_EVERY_SECONDS = 1.0
WIDEST_CHART = 48
BESIDE_CHART = 56
"""What frame, labels and numbers take of a line; the chart gets the rest."""


class Screen(Protocol):
    """What a session shows itself on."""

    def step(self, text: str) -> None:
        """Say what was done, before there is a pipeline to show."""

    def progress(self, text: str) -> None:
        """Say how far the current step is; many times a second is fine."""

    def remark(self, text: str) -> None:
        """Say something once: a move, a crash, a warning."""

    def deliver(self, entry: LogLine, raw: bytes) -> None:
        """Show one notification that the Log channel delivered."""

    def show(self, picture: Picture) -> None:
        """Show the pipeline as it is now; called once a second."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainScreen:
    """Lines on standard output; the Log channel's own JSON lines stand among them untouched."""

    def __init__(self) -> None:
        self._last_seconds = -LINE_EVERY_SECONDS
        self._last_accepted = 0
        self._last_line = ""
        self._last_progress = 0.0

    def step(self, text: str) -> None:
        """Print the step."""
        print(text, flush=True)

    def progress(self, text: str) -> None:
        """Print where the step is, once a second."""
        if time.monotonic() - self._last_progress >= PROGRESS_EVERY_SECONDS:
            self._last_progress = time.monotonic()
            print(f"  {text}", flush=True)

    def remark(self, text: str) -> None:
        """Print the remark."""
        print(f"- {text}", flush=True)

    def deliver(self, entry: LogLine, raw: bytes) -> None:
        """Print the line as the Log channel wrote it."""
        del entry
        sys.stdout.buffer.write(raw if raw.endswith(b"\n") else raw + b"\n")
        sys.stdout.buffer.flush()

    def show(self, picture: Picture) -> None:
        """Print one line, every other second, if anything in it changed."""
        passed = picture.seconds - self._last_seconds
        if passed < LINE_EVERY_SECONDS:
            return
        rate = (picture.count.accepted - self._last_accepted) / passed
        line = format_line(picture, rate)
        self._last_seconds, self._last_accepted = picture.seconds, picture.count.accepted
        if line.partition("]")[2] != self._last_line:
            self._last_line = line.partition("]")[2]
            print(line, flush=True)

    def close(self) -> None:
        """Do nothing: a pipe has no state to restore."""


class LiveScreen:
    """One panel that is drawn over and over, with the last remarks and deliveries below it."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._history = History()
        self._remarks: deque[tuple[float, str]] = deque(maxlen=REMARKS_SHOWN)
        self._latest: deque[str] = deque(maxlen=LATEST_SHOWN)
        self._started = time.monotonic()
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._status = Status("", console=self._console)
        self._is_live = False

    def step(self, text: str) -> None:
        """Print the step above the place where the panel will be."""
        self._status.stop()
        self._console.print(f"[dim]{time.monotonic() - self._started:5.1f} s[/]  {text}", highlight=False)

    def progress(self, text: str) -> None:
        """Turn a spinner beside the text."""
        self._status.update(f"[dim]{text}[/]")
        self._status.start()

    def remark(self, text: str) -> None:
        """Keep the remark for the panel; print it while there is none."""
        self._remarks.append((time.monotonic() - self._started, text))
        if not self._is_live:
            self._console.print(Text(text, "yellow"))

    def deliver(self, entry: LogLine, raw: bytes) -> None:
        """Keep the notification for the panel."""
        del raw
        title = f"{entry.title}: " if entry.title else ""
        self._latest.append(f"→ {entry.to_id}  {title}{entry.message or ''}")

    def show(self, picture: Picture) -> None:
        """Draw the panel."""
        if not self._is_live:
            self._is_live = True
            self._status.stop()
            self._console.print()
            self._live.start()
        self._history.add(picture)
        self._live.update(self._draw(picture), refresh=True)

    def close(self) -> None:
        """Leave the last panel standing."""
        self._status.stop()
        if self._is_live:
            self._live.stop()
            self._is_live = False

    def _draw(self, picture: Picture) -> RenderableType:
        parts: list[RenderableType] = [self._draw_numbers(picture), Text()]
        parts.append(Text.assemble(("decision   ", "dim"), picture.decision, overflow="fold"))
        if self._latest:
            parts += [Text(), *(Text(each, "cyan", no_wrap=True, overflow="ellipsis") for each in self._latest)]
        if self._remarks:
            parts.append(Text())
            parts += [
                Text(f"{at:5.0f} s  {text}", "yellow", no_wrap=True, overflow="ellipsis") for at, text in self._remarks
            ]
        parts += [Text(), Text(picture.example, "green", overflow="fold")]
        return Panel(
            Group(*parts),
            title=f"[bold]{self._title}[/]",
            subtitle=f"[dim]{picture.phase} · {format_seconds(picture.seconds)} · Ctrl-C drains and stops[/]",
            border_style="blue",
            padding=(1, 2),
        )

    def _draw_numbers(self, picture: Picture) -> Table:
        history, count = self._history, picture.count
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", min_width=9)
        table.add_column(min_width=30)
        table.add_column(no_wrap=True)
        width = max(0, min(WIDEST_CHART, self._console.width - BESIDE_CHART))
        rates = (history.accepted_per_second, history.delivered_per_second)
        top = max([*rates[0], *rates[1], 1.0])
        table.add_row("accepted", _number(count.accepted, rates[0]), Text(draw_bars(rates[0], width, top=top), "cyan"))
        table.add_row(
            "delivered", _number(count.delivered, rates[1]), Text(draw_bars(rates[1], width, top=top), "green")
        )
        table.add_row("lag", format_backlog(picture.backlog), Text(draw_bars(history.lag_records, width), "yellow"))
        fleet = Text(format_fleet(picture.fleet), "bold")
        table.add_row("consumers", fleet, Text(draw_counts(history.consumers, width), "magenta"))
        if ends := _other_ends(picture):
            table.add_row("also", Text(ends, "yellow"), "")
        return table


def build_screen(title: str) -> Screen:
    """Return the live screen if standard output is a terminal, else the plain one."""
    console = Console()
    return LiveScreen(title, console) if console.is_terminal and not console.is_dumb_terminal else PlainScreen()


def _number(total: int, per_second: deque[float]) -> Text:
    return Text.assemble((f"{total:,}", "bold"), f"   {per_second[-1] if per_second else 0:.0f}/s")


def _other_ends(picture: Picture) -> str:
    named = (
        (picture.refused, "refused"),
        (picture.count.dead_lettered, "dead-lettered"),
        (picture.count.dropped, "expired or suppressed"),
        (picture.count.duplicates, "duplicates"),
    )
    return " · ".join(f"{number:,} {name}" for number, name in named if number)
