"""The README's commands for a cluster, run as they stand there, but for the image's name and a namespace of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from documentation import find_block
from e2e.cluster import wait_until
from e2e.reader import Reader, reading
from tocsin_cli.embedded.kafka import EmbeddedKafka

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def reader(
    tmp_path_factory: pytest.TempPathFactory, image: str, host_address: str, host_kafka: EmbeddedKafka
) -> Iterator[Reader]:
    port = int(host_kafka.bootstrap_servers.rpartition(":")[2])
    path = tmp_path_factory.mktemp("readme") / "kubeconfig"
    with reading(image, host_address=host_address, kafka_port=port, kubeconfig=path) as reader:
        yield reader


@pytest.fixture
def pipeline(reader: Reader) -> str:
    """Follow the README to a pipeline that is ready; following it again changes nothing."""
    return reader.do(find_block("README.md", "kubectl apply -f manifests/samples/quickstart.yaml"))


def test_the_pipeline_becomes_ready_and_reads_well_in_a_list(pipeline: str) -> None:
    head, *rows = pipeline[pipeline.index("NAME ") :].splitlines()
    assert head.split() == ["NAME", "READY", "REASON", "INGESTION", "CONSUMERS", "DESIRED", "PARTITIONS", "LAG", "AGE"]
    assert re.match(r"quickstart +True +PipelineServing ", rows[0])


def test_a_notification_goes_through_the_service_and_shows_in_the_log(reader: Reader, pipeline: str) -> None:
    del pipeline
    script = find_block("README.md", "kubectl port-forward")
    forward, _, rest = script.partition("&\n")
    post, _, logs = rest.partition("kubectl logs")
    with subprocess.Popen(
        [*forward.split()[:-1], ":8080"],
        env={**os.environ, "KUBECONFIG": str(reader.kubeconfig)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
        assert address
        accepted = json.loads(reader.do(post.replace("localhost:8080", address[0])))["id"]
        process.terminate()
    wait_until(
        lambda: accepted in reader.do(f"kubectl logs{logs}"),
        seconds=60,
        what="the notification shows in the consumer's log",
    )


def test_why_things_are_as_they_are_is_described(reader: Reader, pipeline: str) -> None:
    del pipeline
    text = reader.do("kubectl describe npl quickstart")
    assert all(words in text for words in ("PipelineServing", "ScalingActive", "Events:"))
    assert "topic" in reader.do("kubectl explain npl.spec.kafka")


def test_dead_letters_are_listed_in_a_consumers_pod(reader: Reader, pipeline: str) -> None:
    del pipeline
    printed = reader.do(find_block("docs/dead-letters.md", "kubectl exec").replace("orders", "quickstart"))
    assert printed == "0 dead letters\n"


def test_the_rendered_manifest_is_accepted_by_the_server(reader: Reader) -> None:
    # A dry run creates no namespace for what follows it in the same file.
    reader.do("kubectl create namespace tocsin")
    try:
        install = find_block("README.md", "manifests/install.yaml")
        reader.do(install.replace("kubectl apply", "kubectl apply --force-conflicts --dry-run=server"))
    finally:
        reader.do("kubectl delete namespace tocsin")


def test_deleting_the_pipeline_leaves_nothing(reader: Reader, pipeline: str) -> None:
    del pipeline
    reader.do("kubectl delete npl quickstart")
    kinds = "deployments,pods,services,serviceaccounts,configmaps,poddisruptionbudgets,networkpolicies"
    selector = "app.kubernetes.io/instance=quickstart"
    wait_until(
        lambda: not reader.do(f"kubectl get {kinds} -l {selector} -o name").strip(),
        seconds=120,
        what="everything of the pipeline is gone",
    )
