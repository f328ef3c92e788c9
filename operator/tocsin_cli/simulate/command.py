"""`tocsin simulate`: a load, some policies, and what each would have made of it.

    tocsin simulate --trace spike
    tocsin simulate --trace mine.csv --partitions 24 --capacity 250 --picture mine.svg

A trace is a file of arrivals per second, one figure a line, or the name of a built-in one. It starts at one replica;
the first 300 s are warm-up and count for nobody. The same seed gives the same numbers. Exit 0, 2 for a mistake in the
flags.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from tocsin_cli.simulate.picture import draw_svg
from tocsin_cli.simulate.policies.base import Terms
from tocsin_cli.simulate.policies.choice import KEDA_SECONDS, POLICIES, build_policy
from tocsin_cli.simulate.run import simulate
from tocsin_cli.simulate.scenario import Pods, Scenario
from tocsin_cli.simulate.table import build_json, draw_table
from tocsin_cli.simulate.traces import NAMED, build_trace, read_csv
from tocsin_core.errors import TocsinError

DEFAULT_POLICIES = "tocsin,keda,keda-even,flink,numaflow"
WARMUP_SECONDS = 300


class SimulationError(TocsinError):
    """The flags do not fit together; the text says what to change."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `tocsin simulate` takes."""
    names = ", ".join(NAMED)
    parser.add_argument("--trace", required=True, help=f"a CSV of arrivals per second, or one of: {names}")
    parser.add_argument("--partitions", type=_count, help="the topic's partitions (default: 60, or the trace's own)")
    parser.add_argument("--capacity", type=_positive, default=100.0, help="what a pod does per second (default: 100)")
    parser.add_argument("--max-lag-seconds", type=_positive, default=30.0, help="the promise (default: 30)")
    parser.add_argument("--min-replicas", type=_count, default=1, help="the fewest pods (default: 1)")
    parser.add_argument("--max-replicas", type=_count, default=60, help="the most pods (default: 60)")
    parser.add_argument("--startup-seconds", type=_positive, help="how long a pod takes to start (default: 30)")
    parser.add_argument("--pause-seconds", type=_count, help="how long a moved partition stands still (default: 3)")
    parser.add_argument("--commit-seconds", type=_count, help="seconds between commits (default: 5)")
    policies = f"any of {', '.join(POLICIES)} (default: {DEFAULT_POLICIES}); keda is lagThreshold = {KEDA_SECONDS} s"
    parser.add_argument("--policies", default=DEFAULT_POLICIES, help=f"{policies} of --capacity")
    parser.add_argument("--seed", type=int, default=1, help="the dice (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw arrivals, lag and replicas")


def run(arguments: argparse.Namespace) -> int:
    """Simulate and print. Raise TraceError, PolicyError or SimulationError for what cannot be simulated."""
    scenario, terms = build_scenario(arguments), build_terms(arguments)
    names = list(dict.fromkeys(each.strip() for each in arguments.policies.split(",") if each.strip()))
    for name in names:
        build_policy(name, terms)
    if not names:
        raise SimulationError(f"--policies: names none; take some of {', '.join(POLICIES)}")
    runs = [simulate(scenario, name, terms, seed=arguments.seed) for name in names]
    if arguments.picture is not None:
        _write(arguments.picture, draw_svg(scenario, runs, max_lag_seconds=terms.max_lag_seconds))
    counted = scenario.seconds - scenario.warmup_seconds
    print(json.dumps(build_json(runs)) if arguments.json else draw_table(runs, seconds=counted))
    return 0


def build_terms(arguments: argparse.Namespace) -> Terms:
    """Return what the policies are told."""
    if arguments.min_replicas > arguments.max_replicas:
        raise SimulationError("--min-replicas must be at most --max-replicas")
    return Terms(
        max_lag_seconds=arguments.max_lag_seconds,
        min_replicas=arguments.min_replicas,
        max_replicas=arguments.max_replicas,
        capacity_per_second=arguments.capacity,
    )


def build_scenario(arguments: argparse.Namespace) -> Scenario:
    """Return the world of the flags: a named trace as it is, or a file's arrivals without any trouble."""
    path = Path(arguments.trace)
    if arguments.trace in NAMED and not path.exists():
        scenario = build_trace(arguments.trace)
    else:
        scenario = Scenario(path.stem, read_csv(path), warmup_seconds=WARMUP_SECONDS)
    if scenario.seconds <= scenario.warmup_seconds:
        raise SimulationError(
            f"--trace {arguments.trace}: {scenario.seconds} s are all warm-up; "
            f"give more than {scenario.warmup_seconds} figures"
        )
    given = {
        "startup_seconds": arguments.startup_seconds,
        "pause_seconds": arguments.pause_seconds,
        "commit_seconds": arguments.commit_seconds,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    pods: Pods = replace(scenario.pods, per_second=arguments.capacity, **changed)
    first = max(1, arguments.min_replicas)
    partitions = arguments.partitions or scenario.partitions
    if scenario.grown_partitions and partitions >= scenario.grown_partitions:
        raise SimulationError(f"--partitions must be below {scenario.grown_partitions}, to which {scenario.name} grows")
    return replace(scenario, pods=pods, partitions=partitions, first_replicas=first)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SimulationError(f"--picture {path}: cannot be written: {error.strerror}") from error


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:  # noqa: PLR2004 - nobody simulates more
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 10000")
    return number
