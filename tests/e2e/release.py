"""The chart, installed and uninstalled with helm as a user would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from e2e.cluster import Answer, Kubectl, fresh_namespace, run_command

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tocsin"


class Release(NamedTuple):
    """An installed release: kubectl in its namespace, and what helm said."""

    kubectl: Kubectl
    notes: str

    @property
    def account(self) -> str:
        """Return the operator's user name, as RBAC knows it."""
        return f"system:serviceaccount:{self.kubectl.namespace}:tocsin"

    def wait_ready(self) -> None:
        """Wait until the operator's pods are there."""
        self.kubectl.do("rollout", "status", "deployment/tocsin", "--timeout=180s")

    def logs(self) -> str:
        """Return the last lines of the operator's pods."""
        return self.kubectl.ask("logs", "--selector=app.kubernetes.io/component=operator", "--tail=40").out


def helm(*words: str) -> Answer:
    """Run helm."""
    return run_command("helm", *words)


@contextmanager
def installed(image: str, *values: str) -> Iterator[Release]:
    """Install the chart in a namespace of its own, and uninstall it after the block."""
    repository, _, tag = image.rpartition(":")
    settings = [f"image.repository={repository}", f"image.tag={tag}", *values]
    with fresh_namespace("tocsin-system") as kubectl:
        words = ["install", "tocsin", str(CHART), "--namespace", kubectl.namespace]
        # The CRD may be there already, applied by whoever offered the cluster or by another test.
        words += ["--take-ownership", "--force-conflicts"]
        answer = helm(*words, *(part for each in settings for part in ("--set", each)))
        assert answer.code == 0, answer.err
        try:
            yield Release(kubectl, answer.out)
        finally:
            helm("uninstall", "tocsin", "--namespace", kubectl.namespace, "--wait", "--ignore-not-found")
