"""The cluster as the tests use it: through kubectl, the way its users do.

The official client was left aside here: what kubectl prints, waits for and refuses is part of what is tested.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from documentation import ROOT

PIPELINES = "notificationpipelines.tocsin.dev"
CRD_FILE = ROOT / "operator" / "tocsin_operator" / "crd" / "notificationpipelines.yaml"
POLL_SECONDS = 0.5
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
"""What a test's pods ask for, so that many fit on a small node."""


class Answer(NamedTuple):
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


class Kubectl(NamedTuple):
    """kubectl, in one namespace. Every call fails the test with kubectl's own words unless it may fail."""

    namespace: str = ""

    def ask(self, *words: str, body: object = None) -> Answer:
        """Run kubectl with `body` as JSON on its standard input, and return what it said."""
        return run_command("kubectl", *self._scope(), *words, standard_input="" if body is None else json.dumps(body))

    def do(self, *words: str, body: object = None) -> str:
        """Run kubectl and return its output; anything but success fails the test."""
        answer = self.ask(*words, body=body)
        assert answer.code == 0, f"kubectl {' '.join(words)}: {answer.err}{answer.out}"
        return answer.out

    def apply(self, *bodies: Mapping[str, Any]) -> None:
        """Apply objects, as `kubectl apply -f -` does."""
        for body in bodies:
            self.do("apply", "-f", "-", body=body)

    def read(self, kind: str, name: str) -> dict[str, Any]:
        """Return one object, {} where there is none."""
        answer = self.ask("get", kind, name, "-o", "json", "--ignore-not-found")
        assert answer.code == 0, answer.err
        body: dict[str, Any] = json.loads(answer.out) if answer.out.strip() else {}
        return body

    def list(self, kind: str, *words: str) -> list[dict[str, Any]]:
        """Return all objects of a kind."""
        items: list[dict[str, Any]] = json.loads(self.do("get", kind, "-o", "json", *words))["items"]
        return items

    def conditions(self, pipeline: str) -> dict[str, dict[str, Any]]:
        """Return the conditions of a pipeline by their type."""
        status = self.read(PIPELINES, pipeline).get("status", {})
        return {each["type"]: each for each in status.get("conditions", [])}

    def _scope(self) -> tuple[str, ...]:
        return ("--namespace", self.namespace) if self.namespace else ()


def run_command(*words: str, standard_input: str = "", timeout_seconds: float = 300) -> Answer:
    """Run a program and return what it said."""
    done = subprocess.run(
        words, input=standard_input, capture_output=True, text=True, check=False, timeout=timeout_seconds
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def wait_until(
    claim: Callable[[], object], *, seconds: float, what: str, explain: Callable[[], object] = lambda: ""
) -> Any:
    """Ask `claim` until it is true and return its answer. When time is up, fail with `what` and what `explain` says."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := claim():
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}\n{explain()}"
        time.sleep(POLL_SECONDS)


@contextmanager
def fresh_namespace(prefix: str) -> Iterator[Kubectl]:
    """Give a namespace of its own, and delete it with all that is in it."""
    name = f"{prefix}-{uuid4().hex[:6]}"
    Kubectl().do("create", "namespace", name)
    try:
        yield Kubectl(name)
    finally:
        Kubectl().ask("delete", "namespace", name, "--wait=false")


@contextmanager
def forwarded(kubectl: Kubectl, service: str) -> Iterator[str]:
    """Forward a free local port to a Service, as a user would, and give its URL."""
    words = ["kubectl", "--namespace", kubectl.namespace, "port-forward", f"service/{service}", ":8080"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, line
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()


def find_other_pipelines() -> list[str]:
    """Return the namespaces that have pipelines and are not on their way out."""
    if not Kubectl().read("crd", PIPELINES):
        return []
    used = {each["metadata"]["namespace"] for each in Kubectl().list(PIPELINES, "--all-namespaces")}
    return sorted(name for name in used if "deletionTimestamp" not in Kubectl().read("namespace", name)["metadata"])


def is_offered() -> bool:
    """Return whether somebody offered a cluster to the tests."""
    return os.environ.get("TOCSIN_TEST_CLUSTER") == "1" and bool(os.environ.get("KUBECONFIG"))
