"""The README's commands for a cluster, run as they stand there, but for the image's name and a namespace of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from documentation import ROOT, find_block
from e2e.cluster import Kubectl, fresh_namespace, run_command, wait_until
from e2e.host import build_host_service
from tocsin_cli.embedded.kafka import EmbeddedKafka

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
INSTALL = "helm install tocsin charts/tocsin"


class Reader(NamedTuple):
    """Somebody who follows the README: a shell whose kubectl has a namespace of its own."""

    kubectl: Kubectl
    kubeconfig: Path

    def do(self, script: str) -> str:
        words = ["bash", "-euo", "pipefail", "-c", script]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def reader(
    tmp_path_factory: pytest.TempPathFactory, image: str, host_address: str, host_kafka: EmbeddedKafka
) -> Iterator[Reader]:
    port = int(host_kafka.bootstrap_servers.rpartition(":")[2])
    repository, _, tag = image.rpartition(":")
    install = find_block("README.md", INSTALL)
    script = install[install.index(INSTALL) :].replace(
        "image.repository=registry.example.org/tocsin", f"image.repository={repository} --set image.tag={tag}"
    )
    with fresh_namespace("readme") as kubectl:
        path = tmp_path_factory.mktemp("readme") / "kubeconfig"
        path.write_text(run_command("kubectl", "config", "view", "--flatten", "--minify").out)
        reader = Reader(kubectl, path)
        reader.do(f"kubectl config set-context --current --namespace {kubectl.namespace}")
        kubectl.apply(*build_host_service("kafka", host_address, port, service_port=9092))
        try:
            reader.do(script.replace(INSTALL, f"{INSTALL} --take-ownership --force-conflicts"))
            yield reader
        finally:
            run_command("helm", "uninstall", "tocsin", "--namespace", "tocsin-system", "--wait", "--ignore-not-found")
            run_command("kubectl", "delete", "namespace", "tocsin-system", "--ignore-not-found")


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
