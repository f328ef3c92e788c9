"""`make bench-delivery`: Tocsin's consumer beside two loops that handle one message at a time.

Prints tables to read, and as the very last line of standard output the ratios as JSON. Exit 0 if everything was
measured, whatever the ratios are; 2 if it could not be.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from bench.delivery import report
from bench.delivery.isolation import Pair, measure_pair
from bench.delivery.stage import PARTITIONS, Stage, build_records, running_stage
from bench.delivery.throughput import NO_OP, Content, Sample, Scene, measure_round
from bench.errors import BenchError
from bench.peers import build_peers, read_go_version
from bench.proc import describe_machine

COULD_NOT = 2
TOPIC = "bench"
PREFIX = "backlog"


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    options = _parse(words)
    try:
        binaries = build_peers()
        _say(_describe(options))
        with running_stage(binaries) as stage:
            samples, pairs = _measure(stage, options)
    except BenchError as error:
        print(f"make bench-delivery: {error}", file=sys.stderr)
        return COULD_NOT
    result = report.build_result(samples, pairs)
    _say(report.explain_samples(samples), report.explain_ratios(samples, unrated=[NO_OP]))
    _say(report.explain_isolation(pairs), report.explain_asked(result), f"Load average at the end: {_load()}")
    print(report.format_result(result), flush=True)
    return 0


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-delivery", description="Deliveries against two loops in Go.")
    parser.add_argument("--rounds", type=int, default=3, help="of every contestant on every sink (default: 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each stretch; twice that at 50 ms (default: 5)")
    parser.add_argument("--isolation-rounds", type=int, default=5, help="of the drain with a slow channel (default: 5)")
    parser.add_argument("--backlog", type=int, default=100_000, help="messages in that drain (default: 100000)")
    parser.add_argument("--messages", type=int, default=100_000, help="messages in the other topic (default: 100000)")
    return parser.parse_args(words)


def _measure(stage: Stage, options: argparse.Namespace) -> tuple[list[Sample], list[Pair]]:
    samples: list[Sample] = []
    if options.rounds:
        stage.create_topic(TOPIC)
        stage.produce(TOPIC, build_records(options.messages, prefix="message"))
    for number in range(1, options.rounds + 1):
        for scene in _build_scenes(options.seconds):
            measured = measure_round(stage, Content(TOPIC, options.messages), scene, number)
            samples += measured
            told = ", ".join(f"{each.contestant} {each.per_second:.0f}/s {each.cpu_us:.0f} µs" for each in measured)
            _progress(f"round {number} of {options.rounds}, {scene.name}: {told}")
    return samples, _measure_pairs(stage, options)


def _measure_pairs(stage: Stage, options: argparse.Namespace) -> list[Pair]:
    backlog = build_records(options.backlog if options.isolation_rounds else 0, prefix=PREFIX)
    pairs: list[Pair] = []
    for number in range(1, options.isolation_rounds + 1):
        pair = measure_pair(stage, backlog, [f"{PREFIX}-{each:08}" for each in range(options.backlog)], number)
        pairs.append(pair)
        told = f"p99 of the backlog {pair.alone.backlog:.1f} s without, {pair.disturbed.backlog:.1f} s with"
        missing = f", cut short with {pair.disturbed.undelivered} missing" * (not pair.disturbed.is_complete)
        _progress(f"round {number} of {options.isolation_rounds}, isolation: {told} the slow channel{missing}")
    return pairs


def _build_scenes(seconds: float) -> list[Scene]:
    return [
        Scene("0 ms", 0, seconds),
        Scene("5 ms", 5, seconds),
        Scene("50 ms", 50, 2 * seconds),
        Scene(NO_OP, None, seconds),
    ]


def _describe(options: argparse.Namespace) -> str:
    return (
        f"{describe_machine()}; {read_go_version()}; load average {_load()}\n"
        f"{PARTITIONS} partitions, {options.rounds} rounds in turn; Tocsin with its defaults and dedupe on"
    )


def _load() -> str:
    return " ".join(f"{each:.1f}" for each in os.getloadavg())


def _say(*texts: str) -> None:
    print("\n\n".join(texts), end="\n\n", flush=True)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
