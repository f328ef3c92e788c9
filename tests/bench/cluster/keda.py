"""KEDA as its users have it: the one that is installed, else KEDA's own release built from its Go module and removed.

Nothing of it is copied: go.mod names the version, its manifests are rendered from the module's folder, and both
programs run in pods. Left out are its admission webhooks, which only check what is written here anyway.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.cluster.traces import LAG_THRESHOLD, LOOK_BACK_SECONDS, POLL_SECONDS, TERMS
from bench.errors import BenchError
from bench.peers import BINARIES, SOURCES
from e2e.cluster import Kubectl, run_command, wait_until

MODULE = "github.com/kedacore/keda/v2"
PROGRAMS = {"keda": f"{MODULE}/cmd/operator", "keda-adapter": f"{MODULE}/cmd/adapter"}
IMAGE = "docker.io/library/tocsin-bench-keda:dev"
ENV_LOAD_IMAGE = "TOCSIN_BENCH_LOAD_IMAGE"
CRD = "crd/scaledobjects.keda.sh"
APISERVICE = "apiservice/v1beta1.external.metrics.k8s.io"
DOCKERFILE = """\
FROM docker.io/library/python:3.13-slim
COPY keda keda-adapter /
USER 65532:65532
"""
ADMISSION = "keda-admission"
"""What the names of its admission webhooks' Deployment and Service begin with."""
READY_SECONDS = 180
BUILD_SECONDS = 7_200


@contextlib.contextmanager
def running_keda() -> Iterator[str]:
    """Give the words that say which KEDA runs; what was installed for it is removed after the block.

    Raise BenchError where there is none and none can be built or brought to the nodes.
    """
    cluster = Kubectl()
    if cluster.ask("get", CRD).code == 0 and not _is_left_behind():
        yield "the cluster's own"
        return
    load_image(IMAGE, build_context())
    objects = read_objects()
    cluster.do("apply", "--server-side", "--force-conflicts", "-f", "-", body=objects)
    try:
        cluster.do("wait", "--for=condition=Available", f"--timeout={READY_SECONDS}s", APISERVICE)
        yield read_version()
    finally:
        cluster.ask("delete", "--ignore-not-found", "--wait=false", "-f", "-", body=objects)


def _is_left_behind() -> bool:
    """Return whether the KEDA in the cluster is that of a run which was killed."""
    operator = Kubectl("keda").read("deployment", "keda-operator")
    return IMAGE in str(operator.get("spec"))


def build_context() -> Path:
    """Build both programs (an hour of a busy machine the first time) and return a folder with their Dockerfile."""
    folder = BINARIES.parent / "keda"
    folder.mkdir(parents=True, exist_ok=True)
    for program, package in PROGRAMS.items():
        words = ("go", "build", "-ldflags", "-s -w", "-o", str(folder / program), package)
        built = _run(*words, timeout_seconds=BUILD_SECONDS)
        if built.returncode != 0:
            raise BenchError(f"KEDA does not build: {shlex.join(words)}\n{built.stderr}")
    (folder / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    return folder


def load_image(image: str, folder: Path) -> None:
    """Build a folder's Dockerfile and bring the image to the nodes, with the command of $TOCSIN_BENCH_LOAD_IMAGE.

    Raise BenchError where there is no such command, or it fails.
    """
    command = os.environ.get(ENV_LOAD_IMAGE, "")
    if not command:
        raise BenchError(
            f"no KEDA in the cluster, and {ENV_LOAD_IMAGE} is not set: install KEDA, or name a command that is called "
            "with an image's name and a folder, builds the folder's Dockerfile and brings the image to the nodes"
        )
    done = run_command(*shlex.split(command), image, str(folder), timeout_seconds=600)
    if done.code != 0:
        raise BenchError(f"{ENV_LOAD_IMAGE}: {command} {image} {folder} failed:\n{done.err}")


def read_objects() -> dict[str, Any]:
    """Return KEDA's own manifests, rendered, as one List."""
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-keda-") as folder:
        config = Path(folder) / "config"
        shutil.copytree(_ask_module("{{.Dir}}") + "/config", config, copy_function=shutil.copyfile)
        rendered = Kubectl().do("kustomize", str(config / "default"))
    return {"apiVersion": "v1", "kind": "List", "items": adapt_objects(list(yaml.safe_load_all(rendered)))}


def adapt_objects(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the objects without the admission webhooks, with their images replaced by ours. Pure."""
    kept = [each for each in objects if not _is_webhook(each)]
    for each in kept:
        if each["kind"] == "Deployment":
            for container in each["spec"]["template"]["spec"]["containers"]:
                container |= {"image": IMAGE, "imagePullPolicy": "IfNotPresent"}
    return kept


def _is_webhook(body: Mapping[str, Any]) -> bool:
    return body["kind"] == "ValidatingWebhookConfiguration" or str(body["metadata"]["name"]).startswith(ADMISSION)


def build_scaled_object(pipeline: str, *, brokers: str, topic: str, group: str) -> dict[str, Any]:
    """Return what KEDA is told: HPA's defaults, but for the window of scaling in, which is the same for both."""
    window = {"scaleDown": {"stabilizationWindowSeconds": LOOK_BACK_SECONDS}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": pipeline},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "tocsin.dev/v1alpha1",
                "kind": "NotificationPipeline",
                "name": pipeline,
            },
            "pollingInterval": POLL_SECONDS,
            "minReplicaCount": TERMS.min_replicas,
            "maxReplicaCount": TERMS.max_replicas,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": window}},
            "triggers": [
                {
                    "type": "kafka",
                    "metadata": {
                        "bootstrapServers": brokers,
                        "consumerGroup": group,
                        "topic": topic,
                        "lagThreshold": str(LAG_THRESHOLD),
                        # Its default of 1.0.0 is older than what brokers of Kafka 4 speak.
                        "version": "3.6.0",
                    },
                }
            ],
        },
    }


def wait_until_scaling(kubectl: Kubectl, pipeline: str) -> None:
    """Return when the HPA that KEDA made has read its metric. Raise BenchError with what it says instead."""

    def is_active() -> bool:
        conditions = kubectl.read("hpa", f"keda-hpa-{pipeline}").get("status", {}).get("conditions", [])
        return any(each["type"] == "ScalingActive" and each["status"] == "True" for each in conditions)

    wait_until(
        is_active,
        seconds=READY_SECONDS,
        what=f"the HPA of {pipeline} reads its metric",
        explain=lambda: kubectl.ask("describe", "scaledobjects,hpa").out,
    )


def read_version() -> str:
    """Return the version that is built."""
    return _ask_module("{{.Version}}")


def _ask_module(form: str) -> str:
    words = ("go", "list", "-m", "-f", form, MODULE)
    asked = _run(*words)
    if asked.returncode != 0:
        raise BenchError(f"{shlex.join(words)} failed:\n{asked.stderr}")
    return asked.stdout.strip()


def _run(*words: str, timeout_seconds: float = 600) -> subprocess.CompletedProcess[str]:
    if shutil.which(words[0]) is None:
        raise BenchError(f"`{words[0]}` is not on PATH: KEDA is built from its Go module. Install Go 1.26 or newer")
    return subprocess.run(
        words,
        cwd=SOURCES / "peers_keda",
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_seconds,
    )
