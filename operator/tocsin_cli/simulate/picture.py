"""The picture of a simulation: arrivals, lag against the promise, and replicas, a line for each policy, as SVG.

Polylines need no library: a chart library would be the heaviest dependency of the command line. Long runs are thinned
to the picture's width, keeping each slice's highest value, so that no breach disappears.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from tocsin_cli.simulate.run import Run
from tocsin_cli.simulate.scenario import Scenario

WIDTH, PANEL_HEIGHT, GAP, LEFT, RIGHT, TOP = 1_000, 200, 46, 70, 20, 60
COLOURS = ("#0b6e4f", "#c1440e", "#2f4b9b", "#8a5a00", "#7b2d8b", "#4a4a4a", "#00798c", "#b80c4c")
GRID_LINES = 4
TEXT = 'font-family="sans-serif" font-size="12" fill="#333"'
LEGEND_WIDTH = 120


class Line(NamedTuple):
    """One curve of a panel."""

    values: Sequence[float]
    colour: str


class Panel(NamedTuple):
    """One chart: what it shows, its curves, and a level to draw across it (0: none)."""

    title: str
    lines: tuple[Line, ...]
    level: float = 0.0


def draw_svg(scenario: Scenario, runs: Sequence[Run], *, max_lag_seconds: float) -> str:
    """Return the picture of one scenario under several policies."""
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(runs))]
    lags = tuple(Line(run.lag_seconds, colour) for run, colour in zip(runs, colours, strict=True))
    counts = tuple(Line(run.replicas, colour) for run, colour in zip(runs, colours, strict=True))
    panels = (
        Panel("arrivals per second", (Line(scenario.arrivals, "#333333"),)),
        Panel("age of the oldest notification, seconds (dashed: the promise)", lags, max_lag_seconds),
        Panel("replicas", counts),
    )
    height = TOP + len(panels) * (PANEL_HEIGHT + GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_draw_head(scenario, runs, colours),
    ]
    for number, panel in enumerate(panels):
        parts += _draw_panel(panel, TOP + number * (PANEL_HEIGHT + GAP), scenario.seconds)
    return "\n".join([*parts, "</svg>", ""])


def _draw_head(scenario: Scenario, runs: Sequence[Run], colours: Sequence[str]) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="20" {TEXT} font-weight="bold">{escape(scenario.name)}</text>'
    for index, (run, colour) in enumerate(zip(runs, colours, strict=True)):
        x = LEFT + index * LEGEND_WIDTH
        yield f'<rect x="{x}" y="30" width="14" height="4" fill="{colour}"/>'
        yield f'<text x="{x + 20}" y="37" {TEXT}>{escape(run.policy)}</text>'


def _draw_panel(panel: Panel, top: int, seconds: int) -> Iterator[str]:
    highest = max([panel.level * 1.2, 1.0, *(max(line.values, default=0.0) for line in panel.lines)])
    bottom = top + 20 + PANEL_HEIGHT - 20
    yield f'<text x="{LEFT}" y="{top + 12}" {TEXT}>{escape(panel.title)}</text>'
    for number in range(GRID_LINES + 1):
        value = highest * number / GRID_LINES
        y = _place(value, highest, bottom)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" {TEXT} text-anchor="end">{value:.0f}</text>'
    if panel.level:
        y = _place(panel.level, highest, bottom)
        where = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        yield f'<line {where} stroke="#cc0000" stroke-dasharray="6 4"/>'
    for line in panel.lines:
        yield _draw_line(line, highest, bottom)
    yield f'<text x="{WIDTH - RIGHT}" y="{bottom + 16}" {TEXT} text-anchor="end">{seconds / 60:.0f} min</text>'


def _draw_line(line: Line, highest: float, bottom: int) -> str:
    width = WIDTH - LEFT - RIGHT
    values = _thin(line.values, width)
    step = width / max(1, len(values) - 1)
    points = " ".join(
        f"{LEFT + index * step:.1f},{_place(value, highest, bottom):.1f}" for index, value in enumerate(values)
    )
    return f'<polyline fill="none" stroke="{line.colour}" stroke-width="1.5" points="{points}"/>'


def _place(value: float, highest: float, bottom: int) -> float:
    return bottom - value / highest * (PANEL_HEIGHT - 24)


def _thin(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [index * len(values) // width for index in range(width + 1)]
    return [max(values[start:end]) for start, end in pairwise(edges)]
