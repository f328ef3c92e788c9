"""Named loads. Those in TUNED were looked at while the rules' constants were chosen; those in HELD_OUT were not.

All are written for pods that do 100 a second, and most for 60 partitions.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tocsin_cli.simulate.scenario import Pods, Scenario, Span
from tocsin_core.errors import TocsinError

MINUTE, HOUR = 60, 3_600
NOISE = 1.0
MOST_SECONDS = 7 * 24 * HOUR


class TraceError(TocsinError):
    """A trace that cannot be used; the text names the file, the line and what is wanted."""


def read_csv(path: Path) -> list[float]:
    """Return a file's arrivals per second: one figure a line, `#` starts a comment, a header is skipped.

    Raise TraceError naming the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"--trace {path}: cannot be read: {error}") from error
    figures: list[float] = []
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        cell = row[-1].split("#")[0].strip() if row else ""
        if cell and not (number == 1 and _is_word(cell)):
            figures.append(_parse_figure(cell, path, number))
    if not figures:
        raise TraceError(f"--trace {path}: holds no figures; write the arrivals per second, one figure a line")
    if len(figures) > MOST_SECONDS:
        raise TraceError(f"--trace {path}: holds {len(figures)} seconds, at most {MOST_SECONDS} are simulated")
    return figures


def _is_word(cell: str) -> bool:
    return any(letter.isalpha() for letter in cell) and cell.lower() not in {"nan", "inf"}


def _parse_figure(cell: str, path: Path, number: int) -> float:
    try:
        figure = float(cell)
    except ValueError:
        figure = math.nan
    if not math.isfinite(figure) or figure < 0:
        raise TraceError(f"--trace {path}, line {number}: {cell!r} is no number of arrivals per second (0 or more)")
    return figure


def _curve(seconds: int, rate: Callable[[int], float]) -> list[float]:
    return [max(0.0, rate(second)) for second in range(seconds)]


def _between(second: int, start: int, end: int, inside: float, outside: float) -> float:
    return inside if start <= second < end else outside


def _build_step() -> Scenario:
    return Scenario("step", _curve(2 * HOUR, lambda t: _between(t, 2_400, 4_800, 1_200, 300)))


def _build_ramp() -> Scenario:
    def rate(second: int) -> float:
        return 300 + 1_200 * max(0.0, 1 - abs(second - HOUR) / 2_700)

    return Scenario("ramp", _curve(2 * HOUR, rate))


def _build_spike() -> Scenario:
    return Scenario("spike", _curve(2 * HOUR, lambda t: _between(t % 900, 810, 900, 1_500, 300)))


def _build_diurnal() -> Scenario:
    day = 4 * HOUR
    return Scenario("diurnal", _curve(day, lambda t: 675 - 525 * math.cos(2 * math.pi * t / day)))


def _build_hot() -> Scenario:
    load = _curve(5_400, lambda _: 600)
    return Scenario("hot", load, hot_share=0.2, hot=Span(1_500, 3_300))


def _build_stuck() -> Scenario:
    return Scenario("stuck", _curve(6_600, lambda _: 500), frozen=Span(1_200, 4_800))


def _build_downstream() -> Scenario:
    load = _curve(5_400, lambda t: _between(t, 1_200, 3_000, 800, 400))
    return Scenario("downstream", load, ceiling_per_second=500, ceiling=Span(1_200, 3_000))


def _build_flaky() -> Scenario:
    return Scenario("flaky", _curve(5_400, lambda _: 800), kill_every_seconds=300)


def _build_onoff() -> Scenario:
    return Scenario("onoff", _curve(2 * HOUR, lambda t: _between(t % 1_200, 1_020, 1_200, 400, 0)))


def _build_backlog() -> Scenario:
    return Scenario("backlog", _curve(HOUR, lambda _: 200), backlog=200_000, warmup_seconds=0)


def _build_growth() -> Scenario:
    load = _curve(5_400, lambda t: _between(t, 1_800, 5_400, 1_000, 400))
    return Scenario("growth", load, partitions=12, grown_partitions=36, grown_at=2_400)


def _build_outage() -> Scenario:
    load = _curve(5_400, lambda t: _between(t, 2_000, 3_600, 900, 400))
    return Scenario("outage", load, outage=Span(1_900, 2_200))


def _build_partial() -> Scenario:
    return Scenario("partial", _curve(5_400, lambda _: 900), partial=Span(1_800, 2_700))


def _build_deploy() -> Scenario:
    return Scenario("deploy", _curve(5_400, lambda _: 800), deploys=(1_500, 3_300))


def _build_drift() -> Scenario:
    return Scenario("drift", _curve(5_400, lambda _: 600), slow_factor=0.5, slow=Span(1_800, 3_600))


def _build_slow_nodes() -> Scenario:
    load = _curve(2 * HOUR, lambda t: _between(t, 2_400, 4_800, 900, 300))
    return Scenario("slow-nodes", load, pods=Pods(startup_seconds=120))


def _build_eager() -> Scenario:
    load = _curve(2 * HOUR, lambda t: _between(t, 2_400, 4_800, 1_200, 300))
    return Scenario("eager", load, pods=Pods(is_eager=True, pause_seconds=8))


def _build_evening() -> Scenario:
    """Two peaks of a day in three hours, the second with a flash crowd on top."""

    def rate(second: int) -> float:
        noon = 500 * math.exp(-(((second - 3_600) / 1_200) ** 2))
        evening = 900 * math.exp(-(((second - 7_800) / 1_500) ** 2))
        return 150 + noon + evening + _between(second, 7_200, 7_380, 800, 0)

    return Scenario("evening", _curve(3 * HOUR, rate))


def _build_campaign() -> Scenario:
    """On the half hour somebody sends to everybody: a burst that decays."""

    def rate(second: int) -> float:
        return 200 + _between(second, 1_800, 3 * HOUR, 2_500, 0) * math.exp(-(second % 1_800) / 90)

    return Scenario("campaign", _curve(3 * HOUR, rate))


def _build_walk() -> Scenario:
    """Let a load wander, over partitions that keys fill unevenly."""
    dice = random.Random(20_261_124)  # noqa: S311 - a simulation wants the same dice each time
    level, load = 500.0, []
    for second in range(2 * HOUR):
        if second % 20 == 0:
            level = min(1_600.0, max(100.0, level * math.exp(dice.gauss(0, 0.06))))
        load.append(level)
    return Scenario("walk", load, skew=0.25)


TUNED: dict[str, Callable[[], Scenario]] = {
    "step": _build_step,
    "ramp": _build_ramp,
    "spike": _build_spike,
    "diurnal": _build_diurnal,
    "hot": _build_hot,
    "stuck": _build_stuck,
    "downstream": _build_downstream,
    "flaky": _build_flaky,
    "onoff": _build_onoff,
    "backlog": _build_backlog,
}
HELD_OUT: dict[str, Callable[[], Scenario]] = {
    "growth": _build_growth,
    "outage": _build_outage,
    "partial": _build_partial,
    "deploy": _build_deploy,
    "drift": _build_drift,
    "slow-nodes": _build_slow_nodes,
    "eager": _build_eager,
    "evening": _build_evening,
    "campaign": _build_campaign,
    "walk": _build_walk,
}
NAMED = {**TUNED, **HELD_OUT}


def build_trace(name: str) -> Scenario:
    """Return a named scenario with the noise of independent senders. Raise TraceError for a name that is none."""
    build = NAMED.get(name)
    if build is None:
        raise TraceError(f"--trace {name}: neither a file nor one of {', '.join(NAMED)}")
    return replace(build(), noise=NOISE)
