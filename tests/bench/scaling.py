"""`make bench-scaling`: Tocsin's scaling beside the published formulas of others, over every named trace.

The last line of standard output is JSON: what Tocsin took for each of what KEDA + HPA took (lagThreshold = what a pod
does in five seconds), over all traces, and over those alone that nobody looked at while the rules were tuned. Time over
the promise is counted above what a policy pinned at the maximum misses too. `cluster` is the same from the real thing,
on the cluster that is offered as to the cluster tests; null, and said aloud, where there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.cluster.report import run_traces
from bench.cluster.traces import TRACES
from bench.compare import FLOOR, Job, Result, Results, compare
from bench.errors import BenchError
from tocsin_cli.simulate.picture import draw_svg
from tocsin_cli.simulate.policies.base import Terms
from tocsin_cli.simulate.run import Run, simulate
from tocsin_cli.simulate.table import draw_table
from tocsin_cli.simulate.traces import HELD_OUT, NAMED, build_trace

PEER = "keda"
PEERS = (
    PEER,
    "keda-even",
    "keda-exact",
    "keda-2s",
    "keda-10s",
    "keda-30s",
    "keda-default",
    "flink",
    "flink-fast",
    "numaflow",
)
POLICIES = ("tocsin", "tocsin-offsets", *PEERS, FLOOR)
TERMS = Terms(max_lag_seconds=30, max_replicas=60, capacity_per_second=100)


def run_job(job: Job) -> tuple[Job, Result]:
    """Simulate one policy in one trace."""
    scenario = build_trace(job.trace)
    run = simulate(scenario, job.policy, TERMS, seed=job.seed)
    return job, Result(run.score, scenario.seconds - scenario.warmup_seconds)


def build_summary(results: Results, cluster: Mapping[str, float | None] | None) -> dict[str, object]:
    """Return the line that programs read."""
    return {
        "vs_keda": compare(results, "tocsin", PEER, NAMED),
        "held_out": compare(results, "tocsin", PEER, HELD_OUT),
        "cluster": cluster,
    }


def main() -> int:
    """Simulate everything, print a table a trace and Tocsin beside each peer, and the summary last."""
    parser = argparse.ArgumentParser(prog="make bench-scaling", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many dice each trace is thrown with (default: 1)")
    parser.add_argument("--traces", default=",".join(NAMED), help="which traces (default: all)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="draw each trace with tocsin, keda and flink-fast"
    )
    parser.add_argument("--no-cluster", action="store_true", help="simulate only, also where a cluster is offered")
    arguments = parser.parse_args()
    traces = arguments.traces.split(",")
    jobs = [Job(*each) for each in _list_jobs(traces, arguments.seeds)]
    with ProcessPoolExecutor(arguments.workers) as pool:
        results = dict(pool.map(run_job, jobs))
    for trace in traces:
        _print_trace(trace, results)
    _print_peers(results, traces)
    if arguments.pictures is not None:
        _draw(arguments.pictures, traces)
    cluster = None if arguments.no_cluster else measure_cluster(arguments.pictures)
    print(json.dumps(build_summary(results, cluster)))
    return 0


def measure_cluster(pictures: Path | None) -> dict[str, float | None] | None:
    """Return what the real runs came to; None, and why on standard error, where they cannot be or went wrong."""
    try:
        return run_traces(list(TRACES), pictures=pictures)
    except BenchError as error:
        reason: object = error
    except Exception as error:  # noqa: BLE001 - whatever happens on a cluster, the simulations' result is told
        traceback.print_exc()
        reason = f"{type(error).__name__}, see above"
    print(f"bench-scaling: NOTHING IS MEASURED ON A CLUSTER, `cluster` is null: {reason}", file=sys.stderr)
    return None


def _list_jobs(traces: Sequence[str], seeds: int) -> list[tuple[str, str, int]]:
    return [(trace, policy, 1 + seed) for trace in traces for policy in POLICIES for seed in range(seeds)]


def _print_trace(trace: str, results: Results) -> None:
    mark = " (held out: not looked at while tuning)" if trace in HELD_OUT else ""
    print(f"\n{trace}{mark}")
    found = {policy: results[Job(trace, policy, 1)] for policy in POLICIES}
    runs = [Run(policy, result.score) for policy, result in found.items()]
    print(draw_table(runs, seconds=found[FLOOR].seconds))


def _print_peers(results: Results, traces: Sequence[str]) -> None:
    """Print Tocsin for each of what every peer took, and the same of its rules without the pods' counters."""
    held_out = [trace for trace in traces if trace in HELD_OUT]
    for title, wanted in (("all traces", traces), ("held-out traces", held_out)):
        print(f"\n{title}: what Tocsin took for each of what the peer took")
        for peer in PEERS if wanted else ():
            print(f"  vs {peer:13} {_show(compare(results, 'tocsin', peer, wanted))}")
        if wanted:
            print(f"  offsets only vs {PEER} {_show(compare(results, 'tocsin-offsets', PEER, wanted))}")


def _show(ratios: Mapping[str, float | None]) -> str:
    return "  ".join(f"{name} {'-' if value is None else value}" for name, value in ratios.items())


def _draw(folder: Path, traces: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for trace in traces:
        scenario = build_trace(trace)
        runs = [simulate(scenario, policy, TERMS, seed=1) for policy in ("tocsin", PEER, "flink-fast")]
        (folder / f"{trace}.svg").write_text(draw_svg(scenario, runs, max_lag_seconds=TERMS.max_lag_seconds))


if __name__ == "__main__":
    raise SystemExit(main())
