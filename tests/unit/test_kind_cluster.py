"""The kind cluster's files: the configuration against kind's own types, and the reloader of the dev image, running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KIND = ROOT / "manifests" / "kind"


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


STRING = {"type": "string"}
FLAG = {"type": "boolean"}
PORT = {"type": "integer", "minimum": 0, "maximum": 65_535}
PATCH = closed(group=STRING, version=STRING, kind=STRING, patch=STRING)
MOUNT = closed(containerPath=STRING, hostPath=STRING, readOnly=FLAG, selinuxRelabel=FLAG, propagation=STRING)
MAPPING = closed(containerPort=PORT, hostPort=PORT, listenAddress=STRING, protocol={"enum": ["TCP", "UDP", "SCTP"]})
NODE = closed(
    role={"enum": ["control-plane", "worker"]},
    image=STRING,
    labels={"type": "object", "additionalProperties": STRING},
    extraMounts=listed(MOUNT),
    extraPortMappings=listed(MAPPING),
    kubeadmConfigPatches=listed(STRING),
    kubeadmConfigPatchesJSON6902=listed(PATCH),
)
NETWORKING = closed(
    ipFamily={"enum": ["ipv4", "ipv6", "dual"]},
    apiServerPort=PORT,
    apiServerAddress=STRING,
    podSubnet=STRING,
    serviceSubnet=STRING,
    disableDefaultCNI=FLAG,
    kubeProxyMode={"enum": ["iptables", "ipvs", "nftables", "none"]},
    dnsSearch=listed(STRING),
)
# kind decodes its configuration strictly into the Go types of pkg/apis/config/v1alpha4 (v0.33.0); these are the same.
CLUSTER = closed(
    apiVersion={"const": "kind.x-k8s.io/v1alpha4"},
    kind={"const": "Cluster"},
    name={"type": "string", "pattern": "^[a-z0-9.-]+$"},
    nodes=listed(NODE),
    networking=NETWORKING,
    featureGates={"type": "object", "additionalProperties": FLAG},
    runtimeConfig={"type": "object", "additionalProperties": STRING},
    kubeadmConfigPatches=listed(STRING),
    kubeadmConfigPatchesJSON6902=listed(PATCH),
    containerdConfigPatches=listed(STRING),
    containerdConfigPatchesJSON6902=listed(STRING),
)


def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((KIND / "cluster.yaml").read_text(encoding="utf-8"))
    return loaded


def test_kind_would_accept_the_configuration() -> None:
    jsonschema.validate(cluster(), {**CLUSTER, "required": ["apiVersion", "kind"]})


def test_the_schema_refuses_what_kind_refuses() -> None:
    with pytest.raises(jsonschema.ValidationError, match="containerdConfigPatch"):
        jsonschema.validate({**cluster(), "containerdConfigPatch": []}, CLUSTER)


def test_there_is_one_control_plane_and_room_to_spread() -> None:
    roles = [node["role"] for node in cluster()["nodes"]]
    assert sorted(roles) == ["control-plane", "worker", "worker"]


def test_the_nodes_look_for_registries_where_the_script_describes_one() -> None:
    (patch,) = cluster()["containerdConfigPatches"]
    assert 'config_path = "/etc/containerd/certs.d"' in patch
    assert "/etc/containerd/certs.d/localhost:$PORT/hosts.toml" in (KIND / "up").read_text("utf-8")


@pytest.mark.parametrize("script", ["up", "down", "reload"])
def test_scripts_parse_and_may_be_run(script: str) -> None:
    assert os.access(KIND / script, os.X_OK)
    shell = "sh" if script == "reload" else "bash"
    assert subprocess.run([shell, "-n", KIND / script], check=False).returncode == 0


def test_without_docker_the_script_says_what_is_missing(tmp_path: Path) -> None:
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    done = subprocess.run([KIND / "up"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "docker is not on PATH; install it first" in done.stderr


class Reloader:
    """The reloader, running a stand-in for tocsin that says `started` and then reads a line of its standard input."""

    def __init__(self, folder: Path, *, script: str) -> None:
        (folder / "tocsin").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / "tocsin").chmod(0o755)
        self.stamp = folder / "stamp"
        self.stamp.touch()
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "RELOAD_STAMP": str(self.stamp)}
        self.process = subprocess.Popen(
            [KIND / "reload", "operator"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def touch(self) -> None:
        os.utime(self.stamp, ns=(1, self.stamp.stat().st_mtime_ns + 1_000_000_000))

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


WAITS = 'echo "started $*"; trap "echo stopped; exit 0" TERM; while :; do sleep 0.1; done'


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Reloader]:
    reloader = Reloader(tmp_path, script=WAITS)
    yield reloader
    reloader.close()


def test_a_touched_stamp_starts_the_process_again(waiting: Reloader) -> None:
    assert waiting.read_line() == "started operator"
    waiting.touch()
    assert [waiting.read_line(), waiting.read_line()] == ["stopped", "started operator"]


def test_a_stop_reaches_the_process(waiting: Reloader) -> None:
    assert waiting.read_line() == "started operator"
    waiting.process.terminate()
    assert waiting.read_line() == "stopped"
    assert waiting.process.wait(10) == 0


def test_a_process_that_fails_ends_the_container_with_its_code(tmp_path: Path) -> None:
    reloader = Reloader(tmp_path, script="exit 7")
    try:
        assert reloader.process.wait(10) == 7
    finally:
        reloader.close()
