"""Somebody who follows the pages: a shell, a namespace of its own, and the release that the README installs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from documentation import ROOT, find_block
from e2e.cluster import Kubectl, fresh_namespace, run_command
from e2e.host import build_host_service

INSTALL = "helm install tocsin charts/tocsin"
PLACEHOLDER = "image.repository=registry.example.org/tocsin"


class Reader(NamedTuple):
    """A shell whose kubectl has a namespace of its own."""

    kubectl: Kubectl
    kubeconfig: Path

    def do(self, script: str) -> str:
        """Run a script in the checkout and return its output; anything but success fails the test."""
        words = ["bash", "-euo", "pipefail", "-c", script]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def reading(image: str, *, host_address: str, kafka_port: int, kubeconfig: Path) -> Iterator[Reader]:
    """Install as the README says, but for the image's name, with a Kafka at kafka:9092; uninstall after the block."""
    repository, _, tag = image.rpartition(":")
    install = find_block("README.md", INSTALL)
    script = install[install.index(INSTALL) :].replace(
        PLACEHOLDER, f"image.repository={repository} --set image.tag={tag}"
    )
    with fresh_namespace("readme") as kubectl:
        kubeconfig.write_text(run_command("kubectl", "config", "view", "--flatten", "--minify").out)
        reader = Reader(kubectl, kubeconfig)
        reader.do(f"kubectl config set-context --current --namespace {kubectl.namespace}")
        kubectl.apply(*build_host_service("kafka", host_address, kafka_port, service_port=9092))
        try:
            reader.do(script.replace(INSTALL, f"{INSTALL} --take-ownership --force-conflicts"))
            yield reader
        finally:
            run_command("helm", "uninstall", "tocsin", "--namespace", "tocsin-system", "--wait", "--ignore-not-found")
            run_command("kubectl", "delete", "namespace", "tocsin-system", "--ignore-not-found")
