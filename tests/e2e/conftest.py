"""Cluster tests run only on a cluster that was offered: TOCSIN_TEST_CLUSTER=1 and KUBECONFIG. Else they skip, aloud.

TOCSIN_TEST_IMAGE     an image of this checkout that the cluster's nodes have or can pull (else: tests with pods skip)
TOCSIN_TEST_HOST_IP   an address of this machine that pods can reach (else: the one it routes to the cluster from)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from e2e.cluster import CRD_FILE, Kubectl, fresh_namespace, is_offered
from e2e.host import EVERYWHERE, build_host_service, find_host_address
from e2e.release import Release, installed
from tocsin_cli.embedded.kafka import EmbeddedKafka


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = _find_missing()
    for item in items:
        if missing and item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.skip(reason=missing))


def _find_missing() -> str:
    if not is_offered():
        return "no cluster was offered: set TOCSIN_TEST_CLUSTER=1 and KUBECONFIG, or run `make e2e`"
    programs = [name for name in ("kubectl", "helm") if shutil.which(name) is None]
    return f"a cluster was offered, but not on PATH: {', '.join(programs)}" if programs else ""


@pytest.fixture(scope="session")
def crd() -> None:
    """Bring the CRD of this checkout."""
    Kubectl().do("apply", "--server-side", "--force-conflicts", "-f", str(CRD_FILE))
    Kubectl().do("wait", "--for=condition=Established", "--timeout=30s", "crd/notificationpipelines.tocsin.dev")


@pytest.fixture
def kubectl(crd: None) -> Iterator[Kubectl]:
    """Give kubectl in a namespace that only this test uses."""
    del crd  # it need only be there
    with fresh_namespace("tocsin-e2e") as kubectl:
        yield kubectl


@pytest.fixture(scope="session")
def image() -> str:
    """Name the image under test."""
    name = os.environ.get("TOCSIN_TEST_IMAGE", "")
    if not name:
        pytest.skip("no image to run in pods: set TOCSIN_TEST_IMAGE to an image of this checkout that the cluster has")
    return name


@pytest.fixture(scope="session")
def host_address() -> str:
    """Name an address of this machine that pods can reach."""
    return find_host_address()


@pytest.fixture(scope="session")
def host_kafka(host_address: str) -> Iterator[EmbeddedKafka]:
    """A real Kafka on this machine, for pods."""
    with EmbeddedKafka(host=EVERYWHERE, advertised_host=host_address) as kafka:
        yield kafka


class Site(NamedTuple):
    """A namespace with an operator that looks after it alone, and a Kafka at kafka:9092."""

    kubectl: Kubectl
    release: Release

    def explain(self) -> str:
        """Return what helps whoever reads a failed wait."""
        pods = self.kubectl.ask("get", "npl,deployments,pods", "-o", "wide").out
        events = self.kubectl.ask("get", "events", "--sort-by=.lastTimestamp").out
        return f"{pods}\n{events}\n{self.release.logs()}"


@pytest.fixture(scope="module")
def site(image: str, host_address: str, host_kafka: EmbeddedKafka) -> Iterator[Site]:
    """Install the operator for one namespace, and wait until it runs."""
    port = int(host_kafka.bootstrap_servers.rpartition(":")[2])
    with (
        fresh_namespace("tocsin-e2e") as kubectl,
        installed(image, f"watchNamespaces={{{kubectl.namespace}}}") as release,
    ):
        kubectl.apply(*build_host_service("kafka", host_address, port, service_port=9092))
        release.wait_ready()
        yield Site(kubectl, release)
