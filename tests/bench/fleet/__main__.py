"""`make bench-fleet`: one scaling pass over 1,000 pipelines on three Kafka clusters, with the reading of their pods.

Real brokers, real admin clients, real sockets of as many pods as there are pipelines; the Kubernetes API is stood in
for at the operator's own seam, counts what is written, and answers at once. Passes run on the operator's grid, every
`intervalSeconds` of the pipelines; which of them read the pods is the operator's own choice. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from bench.fleet.pages import READY, list_addresses
from bench.proc import describe_machine
from fleet import (
    CountingClusters,
    CountingReader,
    StandInAPI,
    count_connections,
    create_topics,
    fill_cache,
    name_pipeline,
)
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.embedded.process import find_free_ports
from tocsin_operator.cache import Cache
from tocsin_operator.clock import SteadyClock
from tocsin_operator.pods import PodPages
from tocsin_operator.scaler import Scaler

INTERVAL_SECONDS = 5


class Pass(NamedTuple):
    """What one pass took and did."""

    seconds: float
    cpu_seconds: float
    pages: int
    missed: int
    writes: int


class Fleet:
    """The operator's scaler over the fleet, and what is counted around it."""

    def __init__(self, brokers: Sequence[str], pipelines: int, pods: Sequence[str], port: int) -> None:
        share = len(pods) // pipelines
        addresses = {name_pipeline(each): pods[each * share : (each + 1) * share] for each in range(pipelines)}
        self.api = StandInAPI(addresses)
        self.reader = CountingReader(port=port)
        self.clusters = CountingClusters(self.api)
        self.clock = SteadyClock()
        cache = Cache()
        fill_cache(cache, brokers, pipelines, replicas=share, intervalSeconds=INTERVAL_SECONDS, minReplicas=share)
        self.scaler = Scaler(
            api=self.api,  # type: ignore[arg-type]
            cache=cache,
            clusters=self.clusters,
            clock=self.clock,
            registry=CollectorRegistry(),
            pages=PodPages(self.api, self.reader, now=self.clock.now_seconds),
        )

    async def run_pass(self) -> Pass:
        """Run the pass that is due now, and return what it took."""
        before = (self.reader.read_pages, self.reader.missed_pages, self.api.writes)
        started, cpu = time.perf_counter(), time.process_time()
        await self.scaler.run_pass()
        pages, missed, writes = self.reader.read_pages, self.reader.missed_pages, self.api.writes
        return Pass(
            time.perf_counter() - started,
            time.process_time() - cpu,
            pages - before[0],
            missed - before[1],
            writes - before[2],
        )

    async def wait_for_grid(self) -> None:
        """Wait until the next pass is due."""
        await asyncio.sleep(INTERVAL_SECONDS - self.clock.now_seconds() % INTERVAL_SECONDS + 0.01)


async def measure(fleet: Fleet, brokers: Sequence[str], passes: int, *, settle: int) -> dict[str, object]:
    """Run the first pass, let the fleet settle, and run so many more; print each, and return the summary."""
    first = await fleet.run_pass()
    _print_pass("first", first)
    until = time.monotonic() + settle
    while time.monotonic() < until:
        await fleet.wait_for_grid()
        _print_pass("settling", await fleet.run_pass())
    steady, started = [], time.perf_counter()
    for _ in range(passes):
        await fleet.wait_for_grid()
        steady.append(await fleet.run_pass())
        _print_pass("steady", steady[-1])
    elapsed_seconds = time.perf_counter() - started
    connections = [count_connections(each) for each in brokers]
    print(f"admin clients {fleet.clusters.opened}, TCP connections to each cluster {connections}")
    print(f"a page has {fleet.reader.page_bytes} bytes; pods listed {fleet.api.listed} times in all")
    return {
        "first_pass_seconds": round(first.seconds, 2),
        "steady_pass_seconds": round(statistics.median(each.seconds for each in steady), 2),
        "worst_pass_seconds": round(max(each.seconds for each in steady), 2),
        "cpu_seconds_per_pass": round(statistics.mean(each.cpu_seconds for each in steady), 2),
        "pages_per_minute": round(sum(each.pages for each in steady) * 60 / elapsed_seconds),
        "missed_pages": sum(each.missed for each in steady),
        "admin_clients": fleet.clusters.opened,
        "connections_per_cluster": max(connections),
        "steady_writes": sum(each.writes for each in steady),
    }


def _print_pass(kind: str, found: Pass) -> None:
    print(
        f"{kind:9} {found.seconds:6.2f} s, CPU {found.cpu_seconds:5.2f} s, pages {found.pages}, "
        f"missed {found.missed}, writes {found.writes}",
        flush=True,
    )


@contextmanager
def start_pods(count: int) -> Iterator[int]:
    """Run the pods' process; give the port they all listen on."""
    (port,) = find_free_ports("127.0.0.1", 1)
    words = [sys.executable, "-m", "bench.fleet.pages", "--pods", str(count), "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if READY not in line:
                raise SystemExit("the pods' process did not start; see above")
            yield port
        finally:
            process.terminate()


async def run(arguments: argparse.Namespace, brokers: Sequence[str], port: int) -> dict[str, object]:
    """Measure, and close what was opened."""
    pods = list_addresses(arguments.pipelines * arguments.pods)
    fleet = Fleet(brokers, arguments.pipelines, pods, port)
    try:
        return await measure(fleet, brokers, arguments.passes, settle=arguments.settle)
    finally:
        await fleet.reader.close()
        await fleet.clusters.close()


def main() -> int:
    """Start everything, measure, and print the summary last."""
    parser = argparse.ArgumentParser(prog="make bench-fleet", description=__doc__)
    parser.add_argument("--pipelines", type=int, default=1_000, help="how many (default: 1000)")
    parser.add_argument("--clusters", type=int, default=3, help="Kafka clusters they are spread over (default: 3)")
    parser.add_argument("--pods", type=int, default=1, help="consumers of each pipeline (default: 1)")
    parser.add_argument("--settle", type=int, default=75, help="seconds until nothing is news any more (default: 75)")
    parser.add_argument("--passes", type=int, default=12, help="steady passes that are measured (default: 12)")
    arguments = parser.parse_args()
    print(f"{describe_machine()}; load average {os.getloadavg()[0]:.1f}", flush=True)
    with ExitStack() as stack:
        kafkas = [stack.enter_context(EmbeddedKafka()) for _ in range(arguments.clusters)]
        brokers = [each.bootstrap_servers for each in kafkas]
        shares = [
            [name_pipeline(each) for each in range(number, arguments.pipelines, len(brokers))]
            for number in range(len(brokers))
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(create_topics, brokers, shares))
        port = stack.enter_context(start_pods(arguments.pipelines * arguments.pods))
        print(f"{arguments.pipelines} pipelines on {len(brokers)} clusters, {arguments.pods} pods each", flush=True)
        summary = asyncio.run(run(arguments, brokers, port))
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
