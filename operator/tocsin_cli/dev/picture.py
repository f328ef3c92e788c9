"""What is worth showing at one moment, and the words for it. Pure, so that the screen only has to place it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tocsin_cli.dev.ledger import Count

BARS = "▁▂▃▄▅▆▇█"
HISTORY_SECONDS = 600


class Backlog(NamedTuple):
    """How far the consumers are behind; None while nobody knows."""

    records: int | None = None
    seconds: float | None = None


class Fleet(NamedTuple):
    """The consumer processes: running and ready, and how many the scaler wants, between which bounds."""

    ready: int
    running: int
    wanted: int
    lowest: int
    highest: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One moment of the pipeline."""

    phase: str
    seconds: float
    count: Count
    refused: int
    backlog: Backlog
    fleet: Fleet
    decision: str
    example: str


class History:
    """The last minutes, one sample a second, for the little charts: accepted, delivered, lag and consumers."""

    def __init__(self) -> None:
        self.accepted_per_second: deque[float] = deque(maxlen=HISTORY_SECONDS)
        self.delivered_per_second: deque[float] = deque(maxlen=HISTORY_SECONDS)
        self.lag_records: deque[float] = deque(maxlen=HISTORY_SECONDS)
        self.consumers: deque[float] = deque(maxlen=HISTORY_SECONDS)
        self._last = (0.0, 0, 0)

    def add(self, picture: Picture) -> None:
        """Take a sample; rates are since the sample before."""
        seconds, accepted, delivered = self._last
        passed = picture.seconds - seconds
        if passed <= 0:
            return
        self._last = (picture.seconds, picture.count.accepted, picture.count.delivered)
        self.accepted_per_second.append((picture.count.accepted - accepted) / passed)
        self.delivered_per_second.append((picture.count.delivered - delivered) / passed)
        self.lag_records.append(picture.backlog.records or 0)
        self.consumers.append(picture.fleet.running)


def draw_bars(values: Sequence[float], width: int, *, top: float | None = None) -> str:
    """Return a chart of `width` characters: the last values, or all of them averaged when there are more."""
    shown = _fit(list(values), width)
    highest = max([*shown, top or 0.0])
    if highest <= 0:
        return BARS[0] * len(shown)
    return "".join(BARS[min(len(BARS) - 1, int(value / highest * (len(BARS) - 1) + 0.5))] for value in shown)


def draw_counts(values: Sequence[float], width: int) -> str:
    """Return small whole numbers as themselves, one digit each; `+` stands for ten and more."""
    rounded = [round(value) for value in _fit(list(values), width)]
    return "".join(str(value) if value <= 9 else "+" for value in rounded)  # noqa: PLR2004 - one digit


def format_seconds(seconds: float | None) -> str:
    """Return a duration the way a person says it: `0.4 s`, `12 s`, `3 min`."""
    if seconds is None:
        return "?"
    if seconds < 10:  # noqa: PLR2004 - below ten, tenths matter
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004


def format_backlog(backlog: Backlog) -> str:
    """Return the lag in words."""
    if backlog.records is None:
        return "unknown"
    return (
        f"{backlog.records:,} waiting, the oldest for {format_seconds(backlog.seconds)}" if backlog.records else "none"
    )


def format_fleet(fleet: Fleet) -> str:
    """Return the number of consumers, and where it is going."""
    moving = f", going to {fleet.wanted}" if fleet.wanted != fleet.running else ""
    starting = f" ({fleet.ready} ready)" if fleet.ready != fleet.running else ""
    return f"{fleet.running}{starting}{moving} of {fleet.lowest} to {fleet.highest}"


def format_line(picture: Picture, accepted_per_second: float) -> str:
    """Return the moment as one line, for where there is no terminal."""
    count = picture.count
    parts = [
        f"[{picture.seconds:5.0f} s] {picture.phase}",
        f"accepted {count.accepted} ({accepted_per_second:.0f}/s)",
        f"delivered {count.delivered}",
        *([f"dead-lettered {count.dead_lettered}"] if count.dead_lettered else []),
        *([f"refused {picture.refused}"] if picture.refused else []),
        f"lag {format_backlog(picture.backlog)}",
        f"consumers {format_fleet(picture.fleet)}",
    ]
    return " · ".join(parts)


def _fit(values: list[float], width: int) -> list[float]:
    if width <= 0:
        return []
    if len(values) <= width:
        return values
    size = len(values) / width
    chunks = (values[int(i * size) : max(int(i * size) + 1, int((i + 1) * size))] for i in range(width))
    return [sum(chunk) / len(chunk) for chunk in chunks]
