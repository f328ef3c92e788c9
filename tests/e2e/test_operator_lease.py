"""Two operators, one Lease: the second waits, and takes over when the first stops, dies or sleeps too long."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.cluster import Kubectl, wait_until
from e2e.operator_process import LEASE, OperatorProcess
from tocsin_operator.__main__ import LOST_LEASE_EXIT_CODE

pytestmark = pytest.mark.cluster

LONG_SECONDS, SHORT_SECONDS = 90, 10
PATIENCE_SECONDS = 60.0  # less than the long Lease: what happens within it did not wait for the Lease to expire


def find_holder(kubectl: Kubectl) -> str:
    return str(kubectl.read("lease", LEASE).get("spec", {}).get("holderIdentity", ""))


def wait_for_holder(kubectl: Kubectl, process: OperatorProcess) -> None:
    what = f"{process.identity} leads"
    wait_until(
        lambda: find_holder(kubectl) == process.identity,
        seconds=PATIENCE_SECONDS,
        what=what,
        explain=lambda: process.log,
    )


@contextmanager
def two_operators(
    kubectl: Kubectl, tmp_path: Path, *, lease_seconds: int
) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    variables = {"lease_seconds": str(lease_seconds)}
    with OperatorProcess(kubectl.namespace, tmp_path / "first.log", **variables) as first:
        wait_for_holder(kubectl, first)
        with OperatorProcess(kubectl.namespace, tmp_path / "second.log", **variables) as second:
            waits = lambda: "waiting for the lease" in second.log  # noqa: E731
            wait_until(waits, seconds=PATIENCE_SECONDS, what="the second waits", explain=lambda: second.log)
            yield first, second


def test_a_second_instance_waits_and_takes_over_at_once_from_one_that_stops(kubectl: Kubectl, tmp_path: Path) -> None:
    with two_operators(kubectl, tmp_path, lease_seconds=LONG_SECONDS) as (first, second):
        assert find_holder(kubectl) == first.identity
        assert '"leading"' not in second.log
        assert first.stop() == 0, first.log
        wait_for_holder(kubectl, second)


def test_a_second_instance_takes_over_from_one_that_died(kubectl: Kubectl, tmp_path: Path) -> None:
    with two_operators(kubectl, tmp_path, lease_seconds=SHORT_SECONDS) as (first, second):
        first.stop(with_signal=signal.SIGKILL)
        wait_for_holder(kubectl, second)


def test_an_instance_that_slept_through_its_lease_leaves_when_it_wakes(kubectl: Kubectl, tmp_path: Path) -> None:
    with two_operators(kubectl, tmp_path, lease_seconds=SHORT_SECONDS) as (first, second):
        first.pause()
        wait_for_holder(kubectl, second)
        assert first.stop(with_signal=signal.SIGCONT) == LOST_LEASE_EXIT_CODE, first.log
        assert find_holder(kubectl) == second.identity
