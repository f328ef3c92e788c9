"""Samples to tables, ratios and the line that machines read. Pure.

Rounds are interleaved, so a ratio is taken within each round, where both sides met the same machine, and the median of
the rounds is what counts.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.delivery.contestants import CONTESTANTS, KAFKA_GO, POLL_LOOP, TOCSIN
from bench.delivery.isolation import Pair
from bench.delivery.latency import Drained
from bench.delivery.throughput import Sample

SIGNIFICANT_DIGITS = 4
PER_SECOND, PER_CPU_SECOND = "deliveries per second", "deliveries per CPU second"
MEASURES: dict[str, Callable[[Sample], float]] = {
    PER_SECOND: lambda sample: sample.per_second,
    PER_CPU_SECOND: lambda sample: sample.per_cpu_second,
}
PERCENTILES: dict[str, Callable[[Drained], float | None]] = {
    "backlog, from the first delivery": lambda drained: drained.backlog,
    "fresh, from when it was meant to be sent": lambda drained: drained.fresh,
    "fresh, once the fast channels had caught up": lambda drained: drained.after,
}


@dataclass(frozen=True)
class Asked:
    """One number of the last line: where it comes from and what is asked of it."""

    key: str
    scene: str
    peer: str
    measure: str
    at_least: float


ASKED = (
    Asked("vs_poll_loop_0ms", "0 ms", POLL_LOOP, PER_CPU_SECOND, 0.8),
    Asked("vs_poll_loop_50ms", "50 ms", POLL_LOOP, PER_SECOND, 40.0),
    Asked("vs_kafka_go_50ms", "50 ms", KAFKA_GO, PER_SECOND, 40.0),
)
ISOLATED_KEY = "isolated_p99_ratio"
ISOLATED_AT_MOST = 1.5


def build_result(samples: Sequence[Sample], pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Return the last line's numbers; None for what was not measured."""
    result = {
        asked.key: _median(ratios_of(samples, asked.scene, asked.peer, MEASURES[asked.measure])) for asked in ASKED
    }
    far = [_median(isolation_ratios(pairs, pick)) for pick in PERCENTILES.values()]
    return result | {ISOLATED_KEY: max((ratio for ratio in far if ratio is not None), default=None)}


def format_result(result: Mapping[str, float | None]) -> str:
    """Return the last line."""
    return json.dumps(result, separators=(",", ":"))


def ratios_of(samples: Sequence[Sample], scene: str, peer: str, measure: Callable[[Sample], float]) -> list[float]:
    """Return Tocsin's number over the peer's, round by round."""
    ours, theirs = (_pick(samples, contestant, scene) for contestant in (TOCSIN, peer))
    return [measure(our) / measure(their) for our, their in zip(ours, theirs, strict=True) if measure(their)]


def isolation_ratios(pairs: Sequence[Pair], pick: Callable[[Drained], float | None]) -> list[float]:
    """Return the percentile with the slow channel over the one without, round by round, where both are known."""
    values = [(pick(pair.disturbed), pick(pair.alone)) for pair in pairs]
    return [disturbed / alone for disturbed, alone in values if disturbed is not None and alone]


def explain_samples(samples: Sequence[Sample]) -> str:
    """Return the table of all contestants and sinks: medians, and in brackets the least and the most of the rounds."""
    head = ("sink", "contestant", "deliveries/s", "CPU µs/delivery", "broker µs", "store µs", "sink µs", "resident MB")
    rows = [
        (
            scene,
            contestant,
            _spread([each.per_second for each in chosen]),
            _spread([each.cpu_us for each in chosen]),
            _middle([each.broker_cpu_us for each in chosen]),
            _middle([each.store_cpu_us for each in chosen]) if contestant == TOCSIN else "-",
            _middle([each.sink_cpu_us for each in chosen]),
            _middle([each.resident_megabytes for each in chosen]),
        )
        for scene in dict.fromkeys(sample.scene for sample in samples)
        for contestant in CONTESTANTS
        if (chosen := _pick(samples, contestant, scene))
    ]
    return build_table(head, rows)


def explain_ratios(samples: Sequence[Sample], *, unrated: Iterable[str]) -> str:
    """Return the table of Tocsin over each peer, for every sink that a ratio makes sense for."""
    head = ("sink", "Tocsin over", *MEASURES)
    scenes = [scene for scene in dict.fromkeys(sample.scene for sample in samples) if scene not in set(unrated)]
    rows = [
        (scene, peer, *(_spread(ratios_of(samples, scene, peer, measure)) for measure in MEASURES.values()))
        for scene in scenes
        for peer in (POLL_LOOP, KAFKA_GO)
    ]
    return build_table(head, rows)


def explain_isolation(pairs: Sequence[Pair]) -> str:
    """Return the table of the undisturbed channels' p99, in seconds."""
    head = ("p99 of the fast channels", "without the slow one", "with it", "ratio")
    rows = [
        (
            name,
            _spread([value for pair in pairs if (value := pick(pair.alone)) is not None]),
            _spread([value for pair in pairs if (value := pick(pair.disturbed)) is not None]),
            _spread(isolation_ratios(pairs, pick)),
        )
        for name, pick in PERCENTILES.items()
    ]
    return "\n".join([build_table(head, rows), *_remark(pairs)])


def _remark(pairs: Sequence[Pair]) -> list[str]:
    runs = [drained for pair in pairs for drained in pair]
    remarks = [f"Arrived twice in all {len(runs)} runs: {sum(drained.duplicates for drained in runs)}"]
    cut = [drained.undelivered for drained in runs if not drained.is_complete]
    if cut:
        remarks.append(
            f"{len(cut)} of {len(runs)} runs were cut short with up to {max(cut)} deliveries missing: "
            "p99 and ratios are lower bounds"
        )
    return remarks


def explain_asked(result: Mapping[str, float | None]) -> str:
    """Return, for each number of the last line, what was asked of it and whether it was reached."""
    lines = [
        _judge(asked.key, result[asked.key], f"at least {asked.at_least:g}", asked.at_least.__le__) for asked in ASKED
    ]
    far = _judge(ISOLATED_KEY, result[ISOLATED_KEY], f"at most {ISOLATED_AT_MOST:g}", ISOLATED_AT_MOST.__ge__)
    return "\n".join([*lines, far])


def build_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (head, rule, *rows)
    )


def _judge(key: str, value: float | None, asked: str, is_met: Callable[[float], bool]) -> str:
    if value is None:
        return f"{key}: not measured ({asked} is asked)"
    return f"{key}: {value:g}, {asked} is asked: {'reached' if is_met(value) else 'NOT REACHED'}"


def _pick(samples: Sequence[Sample], contestant: str, scene: str) -> list[Sample]:
    return [sample for sample in samples if (sample.contestant, sample.scene) == (contestant, scene)]


def _median(values: Sequence[float]) -> float | None:
    return float(f"{statistics.median(values):.{SIGNIFICANT_DIGITS}g}") if values else None


def _middle(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f}" if values else "-"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{_number(statistics.median(values))} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
