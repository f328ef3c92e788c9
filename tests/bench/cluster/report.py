"""The real runs told: a table and a picture a trace, and Tocsin for each of what KEDA + HPA took."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bench.cluster.arms import KEDA, TOCSIN
from bench.cluster.run import measure
from bench.cluster.stage import running_stage
from bench.cluster.traces import LAG_THRESHOLD, LOOK_BACK_SECONDS, PARTITIONS, PER_SECOND, TERMS, TRACES
from bench.compare import Job, Result, compare
from bench.proc import describe_machine
from tocsin_cli.simulate.picture import draw_svg
from tocsin_cli.simulate.run import Run
from tocsin_cli.simulate.table import draw_table

SEED = 1
PICTURE = "cluster-{}.svg"


def run_traces(names: Sequence[str], *, pictures: Path | None = None) -> dict[str, float | None]:
    """Run the traces, one after the other, tell each, and return the ratios over all of them. Raise BenchError."""
    results: dict[Job, Result] = {}
    with running_stage() as stage:
        print(
            f"\non the cluster, KEDA {stage.keda}: {PARTITIONS} partitions, pods of {PER_SECOND:g} a second, at most "
            f"{TERMS.max_replicas}, a promise of {TERMS.max_lag_seconds:g} s, lagThreshold {LAG_THRESHOLD}, both look "
            f"back {LOOK_BACK_SECONDS} s before they scale in; {describe_machine()}",
            flush=True,
        )
        for name in names:
            load_before = os.getloadavg()[0]
            runs = measure(stage.site, TRACES[name])
            results |= {Job(name, run.policy, SEED): Result(run.score, _count_seconds(name)) for run in runs}
            _tell(name, runs, pictures)
            print(f"load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after", flush=True)
    return compare(results, TOCSIN, KEDA, names)


def _count_seconds(name: str) -> int:
    return TRACES[name].seconds - TRACES[name].warmup_seconds


def _tell(name: str, runs: Sequence[Run], pictures: Path | None) -> None:
    print(f"\n{name}, real\n{draw_table(runs, seconds=_count_seconds(name))}", flush=True)
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        picture = draw_svg(TRACES[name], runs, max_lag_seconds=TERMS.max_lag_seconds)
        (pictures / PICTURE.format(name)).write_text(picture, encoding="utf-8")
