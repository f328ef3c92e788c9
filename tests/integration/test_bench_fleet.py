"""The fleet benchmark as a user runs it, made small: its times mean nothing then, what it counts holds at any size."""

from __future__ import annotations

import json

import pytest

from benchmark import run_benchmark

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


def test_a_fleet_at_rest_costs_a_connection_a_cluster_reads_its_pods_and_writes_nothing() -> None:
    done = run_benchmark("bench-fleet", "--pipelines 12 --clusters 2 --pods 2 --settle 75 --passes 4")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == [
        "first_pass_seconds",
        "steady_pass_seconds",
        "worst_pass_seconds",
        "cpu_seconds_per_pass",
        "pages_per_minute",
        "missed_pages",
        "admin_clients",
        "connections_per_cluster",
        "steady_writes",
    ]
    assert (result["admin_clients"], result["connections_per_cluster"], result["steady_writes"]) == (2, 1, 0)
    assert result["pages_per_minute"] > 0
