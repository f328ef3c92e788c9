"""Measurements to a table, ratios and the line that machines read. Pure.

Rounds are interleaved, so that a ratio is taken within a round, where both sides met the same machine; the median over
the rounds is what counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from bench.ingestion.contestants import GIN_SARAMA, TOCSIN
from bench.ingestion.pause import Paused
from bench.ingestion.stage import Measured

Round = Sequence[Measured]
CLOSED, BATCHES, OPEN = "closed loop", "batches of 100", "fixed rate"


def kind_of(measured: Measured) -> str:
    """Return which of the three kinds of run this was."""
    if measured.load.rate:
        return OPEN
    return BATCHES if measured.load.batch else CLOSED


def build_result(rounds: Sequence[Round], pauses: Sequence[Paused]) -> dict[str, float | int | None]:
    """Return the last line's numbers: Tocsin's, over Gin + sarama's; None for what was not measured."""
    return {
        "single_vs_gin_sarama": _worst(rounds, lambda each: 1 / each.server_microseconds, min),
        "batch_vs_gin_sarama": _median([ratio for each in rounds for ratio in _batch_ratios(each)]),
        "broker_cpu_vs_gin_sarama": _worst(rounds, lambda each: each.broker_microseconds, max),
        "p99_vs_gin_sarama": _median([ratio for each in rounds for ratio in _ratios(each, OPEN, _p99)]),
        "memory_vs_gin_sarama": _worst(rounds, lambda each: each.resident_megabytes, max),
        "lost_after_pause": sum(each.lost for each in pauses) if pauses else None,
    }


def build_table(rounds: Sequence[Round]) -> list[str]:
    """Return a line per contestant and kind of run: medians, with the range of the server's CPU."""
    titles = ("conns", 6), ("per s", 9), ("server us", 24), ("broker us", 10)
    answers = ("p50 ms", 8), ("p99", 8), ("p99.9", 8), ("RSS MB", 8)
    lines = [" " * 42 + "".join(title.rjust(width) for title, width in (*titles, *answers))]
    groups: dict[tuple[str, int, str], list[Measured]] = {}
    for each in (measured for one in rounds for measured in one):
        groups.setdefault((kind_of(each), each.load.connections, each.contestant), []).append(each)
    for (kind, connections, name), found in groups.items():
        costs = sorted(each.server_microseconds for each in found)
        cost = f"{statistics.median(costs):.1f} ({costs[0]:.1f}-{costs[-1]:.1f})"
        lines.append(
            f"{name:26}{kind:16}{connections:6}{_middle(found, lambda m: m.per_second):9.0f}{cost:>24}"
            f"{_middle(found, lambda m: m.broker_microseconds):10.1f}"
            + "".join(f"{_middle(found, _answered(key)):8.1f}" for key in ("p50_ms", "p99_ms", "p999_ms"))
            + f"{_middle(found, lambda m: m.resident_megabytes):8.0f}"
        )
    return lines


def build_pause_table(pauses: Sequence[Paused]) -> list[str]:
    """Return a line per pause."""
    return [
        f"pause {each.pause_seconds:g} s: answers {each.statuses}, lost {each.lost}, longest answer "
        f"{each.longest_seconds:.1f} s, recovered after {each.recovered_after_seconds:.2f} s, at most "
        f"{each.resident_megabytes:.0f} MB, slowest health check {each.slowest_health_seconds * 1_000:.0f} ms"
        for each in pauses
    ]


def _worst(
    rounds: Sequence[Round], measure: Callable[[Measured], float], choose: Callable[[list[float]], float]
) -> float | None:
    """Return the median ratio at that number of connections where it is worst."""
    connections = {each.load.connections for one in rounds for each in one if kind_of(each) == CLOSED}
    medians = [
        _median([ratio for one in rounds for ratio in _ratios(one, CLOSED, measure, connections=number)])
        for number in sorted(connections)
    ]
    known = [median for median in medians if median is not None]
    return choose(known) if known else None


def _ratios(
    one: Round, kind: str, measure: Callable[[Measured], float], *, connections: int | None = None
) -> list[float]:
    found = {
        each.contestant: measure(each)
        for each in one
        if kind_of(each) == kind and connections in (None, each.load.connections)
    }
    return [found[TOCSIN] / found[GIN_SARAMA]] if {TOCSIN, GIN_SARAMA} <= found.keys() else []


def _batch_ratios(one: Round) -> list[float]:
    """Return per notification: what Gin + sarama's single requests cost over what Tocsin's batches cost."""
    peers = [each for each in one if kind_of(each) == CLOSED and each.contestant == GIN_SARAMA]
    ours = [each for each in one if kind_of(each) == BATCHES and each.contestant == TOCSIN]
    if not peers or not ours:
        return []
    return [min(each.server_microseconds for each in peers) / ours[0].server_microseconds]


def _p99(measured: Measured) -> float:
    return float(measured.answer["p99_ms"])


def _answered(key: str) -> Callable[[Measured], float]:
    return lambda measured: float(measured.answer[key])


def _middle(found: Sequence[Measured], measure: Callable[[Measured], float]) -> float:
    return statistics.median(measure(each) for each in found)


def _median(ratios: Sequence[float]) -> float | None:
    return round(statistics.median(ratios), 3) if ratios else None
