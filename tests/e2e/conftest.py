"""Cluster tests run only on a cluster that was offered (TOCSIN_TEST_CLUSTER=1 and KUBECONFIG). Elsewhere they skip, aloud.

TOCSIN_TEST_IMAGE     an image of this checkout that the cluster's nodes have or can pull (else: tests with pods skip)
TOCSIN_TEST_HOST_IP   an address of this machine that pods can reach (else: the one it routes to the API server from)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import Kubectl, fresh_namespace, is_offered

ROOT = Path(__file__).resolve().parents[2]
CRD_FILE = ROOT / "operator" / "tocsin_operator" / "crd" / "notificationpipelines.yaml"


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
