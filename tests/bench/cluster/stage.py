"""What the real runs stand on: an offered cluster, Tocsin's operator and a KEDA in it, Kafka and the sink beside it.

The same offer as for the cluster tests (tests/e2e/conftest.py): TOCSIN_TEST_CLUSTER=1, KUBECONFIG, TOCSIN_TEST_IMAGE.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import NamedTuple

from bench.cluster.arms import build_users
from bench.cluster.keda import load_image, running_keda
from bench.cluster.run import Site
from bench.delivery.stage import running_sink
from bench.errors import BenchError
from bench.peers import ROOT, build_peers
from e2e.cluster import fresh_namespace, is_offered
from e2e.host import EVERYWHERE, find_host_address
from e2e.release import installed
from tocsin_cli.embedded.kafka import EmbeddedKafka

IMAGE = "docker.io/library/tocsin:bench"


class Stage(NamedTuple):
    """A site, and which KEDA is there."""

    site: Site
    keda: str


def find_missing() -> str:
    """Return why there can be no real run, "" where there can."""
    if not is_offered():
        return "no cluster was offered: set TOCSIN_TEST_CLUSTER=1 and KUBECONFIG"
    programs = [name for name in ("kubectl", "helm", "go") if shutil.which(name) is None]
    return f"a cluster was offered, but not on PATH: {', '.join(programs)}" if programs else ""


@contextlib.contextmanager
def running_stage() -> Iterator[Stage]:
    """Bring up everything, and take it down after the block. Raise BenchError saying what is missing."""
    if missing := find_missing():
        raise BenchError(missing)
    with contextlib.ExitStack() as stack:
        address = find_host_address()
        sink = stack.enter_context(running_sink(build_peers("peers", ("sink",)), host=address))
        keda = stack.enter_context(running_keda())
        kafka = stack.enter_context(EmbeddedKafka(host=EVERYWHERE, advertised_host=address))
        kubectl = stack.enter_context(fresh_namespace("tocsin-bench"))
        values = (f"watchNamespaces={{{kubectl.namespace}}}", "replicas=1")
        stack.enter_context(installed(_find_image(), *values)).wait_ready()
        kubectl.apply(build_users())
        yield Stage(Site(kubectl, kafka.bootstrap_servers, sink), keda)


def _find_image() -> str:
    image = os.environ.get("TOCSIN_TEST_IMAGE", "")
    if not image:
        load_image(IMAGE, ROOT)
    return image or IMAGE
