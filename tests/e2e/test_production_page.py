"""The commands of docs/production.md, run in one go on a pipeline of the README's; the last ones remove everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from documentation import find_block
from e2e.cluster import CRD_FILE, PIPELINES, Kubectl, find_other_pipelines, wait_until
from e2e.reader import PLACEHOLDER, Reader, reading
from tocsin_cli.embedded.kafka import EmbeddedKafka

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PAGE = "docs/production.md"
DEPLOYMENTS = ("quickstart-ingestion", "quickstart-consumer")


@pytest.fixture
def reader(image: str, host_address: str, host_kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Reader]:
    """Install the release, and bring back the CRD that the page has deleted, which other tests count on."""
    if others := find_other_pipelines():
        pytest.skip(f"deleting the CRD would delete the pipelines in {', '.join(others)}")
    port = int(host_kafka.bootstrap_servers.rpartition(":")[2])
    path = tmp_path / "kubeconfig"
    try:
        with reading(image, host_address=host_address, kafka_port=port, kubeconfig=path) as reader:
            yield reader
    finally:
        Kubectl().do("apply", "--server-side", "--force-conflicts", "-f", str(CRD_FILE))
        Kubectl().do("wait", "--for=condition=Established", "--timeout=30s", f"crd/{PIPELINES}")


def name_pods(reader: Reader) -> set[str]:
    selector = "--selector=app.kubernetes.io/instance=quickstart"
    return {pod["metadata"]["name"] for pod in reader.kubectl.list("pods", selector)}


def test_a_pipeline_is_restarted_upgraded_taken_back_and_removed(reader: Reader, image: str) -> None:
    reader.do(find_block("README.md", "kubectl apply -f manifests/samples/quickstart.yaml"))
    before = name_pods(reader)
    reader.do(find_block(PAGE, "kubectl rollout restart").replace("orders-", "quickstart-"))
    for name in DEPLOYMENTS:
        reader.do(f"kubectl rollout status deployment/{name} --timeout=180s")
    wait_until(lambda: not before & name_pods(reader), seconds=120, what="the old pods are gone")

    repository, _, tag = image.rpartition(":")
    upgrade = find_block(PAGE, "helm upgrade").replace("image.tag=0.2.0", f"image.tag={tag}")
    upgrade = upgrade.replace(PLACEHOLDER, f"image.repository={repository}")
    reader.do(upgrade.replace("helm upgrade", "helm upgrade --force-conflicts"))
    reader.do(find_block(PAGE, "helm rollback").replace("helm rollback", "helm rollback --force-conflicts"))
    reader.do("kubectl -n tocsin-system rollout status deployment/tocsin --timeout=180s")
    templates = [reader.kubectl.read("deployment", name)["spec"]["template"] for name in DEPLOYMENTS]
    assert all("kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"] for template in templates)

    # Of this namespace alone: the cluster may be somebody's.
    reader.do(find_block(PAGE, "helm uninstall").replace(" --all-namespaces", ""))
    wait_until(lambda: not name_pods(reader), seconds=180, what="the pipeline's pods are gone")
    assert not Kubectl().read("crd", PIPELINES)
