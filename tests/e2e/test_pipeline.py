"""What a user does first: apply the quickstart, post, see it arrive; load it and see it scale; delete it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import connect

import pipelines
from e2e.cluster import PIPELINES, SMALL, Kubectl, forwarded, wait_until
from e2e.conftest import Site
from e2e.host import EVERYWHERE, build_host_service, serve_webhooks
from tocsin_cli.embedded.valkey import EmbeddedValkey

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "manifests" / "samples" / "quickstart.yaml"
BURST = Path(__file__).with_name("burst.py").read_text(encoding="utf-8")
SIGNING_SECRET = "whsec_dG9jc2luLXRlc3RzLXNpZ24td2l0aC10aGlz"
READY_SECONDS = 180
PARTITIONS = 4
BURST_SIZE = 3_000
CHILD_KINDS = "configmaps,serviceaccounts,services,deployments,replicasets,pods,poddisruptionbudgets,networkpolicies"


@pytest.fixture(scope="module")
def quickstart(site: Site) -> Kubectl:
    """The quickstart, applied and ready."""
    site.kubectl.do("apply", "-f", str(QUICKSTART))
    wait_ready(site, "quickstart")
    return site.kubectl


def wait_ready(site: Site, name: str) -> None:
    words = ("wait", "--for=condition=Ready", f"{PIPELINES}/{name}", f"--timeout={READY_SECONDS}s")
    answer = site.kubectl.ask(*words)
    assert answer.code == 0, f"{answer.err}\n{site.explain()}"


def build_pipeline(name: str, *, channel: dict[str, Any], **consumer: Any) -> dict[str, Any]:
    changes = {
        "spec.kafka.topic": {"name": name, "partitions": PARTITIONS},
        "spec.users.configMapRef.name": "quickstart-users",
        "spec.ingestion.resources": SMALL,
        "spec.consumer": {"channels": [channel], "resources": SMALL, **consumer},
    }
    return pipelines.build_pipeline(changes, name=name)


def test_what_is_posted_through_the_service_is_delivered(quickstart: Kubectl) -> None:
    with forwarded(quickstart, "quickstart-ingestion") as url:
        body = {"fromID": 1, "toID": 2, "message": "bonjour à tous"}
        answer = httpx.post(f"{url}/v1/notifications", json=body, timeout=30)
    assert answer.status_code == 202, answer.text
    notification_id = answer.json()["id"]

    def find_line() -> dict[str, Any]:
        lines = quickstart.do("logs", "deployment/quickstart-consumer", "--tail=-1").splitlines()
        entries = [json.loads(line) for line in lines if notification_id in line]
        return next((entry for entry in entries if entry["event"] == "notification"), {})

    line = wait_until(find_line, seconds=60, what="the consumer logs the notification")
    assert line["message"] == "bonjour à tous"
    assert (line["from_id"], line["to_id"], line["channel"], line["topic"]) == ("1", "2", "log", "quickstart")
    assert {"trace_id", "partition", "offset"} <= set(line)


def test_a_recipient_nobody_knows_is_refused_by_name(quickstart: Kubectl) -> None:
    with forwarded(quickstart, "quickstart-ingestion") as url:
        body = {"fromID": 1, "toID": "nobody", "message": "hello"}
        answer = httpx.post(f"{url}/v1/notifications", json=body, timeout=30)
    assert answer.status_code == 404
    assert "'nobody'" in answer.json()["detail"]


def test_kubectl_get_shows_at_a_glance_how_it_is(quickstart: Kubectl) -> None:
    def read_columns() -> dict[str, str]:
        header, row = (line.split() for line in quickstart.do("get", "npl", "quickstart").splitlines())
        return dict(zip(header, row, strict=True)) if len(row) == len(header) else {}

    columns = wait_until(read_columns, seconds=60, what="every column is filled, lag last")
    assert list(columns)[:-1] == ["NAME", "READY", "REASON", "INGESTION", "CONSUMERS", "DESIRED", "PARTITIONS", "LAG"]
    shown = {name: columns[name] for name in ("READY", "INGESTION", "CONSUMERS", "DESIRED", "PARTITIONS")}
    assert shown == {"READY": "True", "INGESTION": "2", "CONSUMERS": "1", "DESIRED": "1", "PARTITIONS": "12"}


def test_every_condition_is_said_for_the_newest_generation(quickstart: Kubectl) -> None:
    body = quickstart.read(PIPELINES, "quickstart")
    conditions = quickstart.conditions("quickstart")
    assert {"Ready", "Progressing", "Degraded", "KafkaReachable", "ScalingActive"} <= set(conditions)
    assert conditions["Ready"]["observedGeneration"] == body["metadata"]["generation"]
    assert body["status"]["observedGeneration"] == body["metadata"]["generation"]


def test_the_pods_run_hardened_and_without_a_token(quickstart: Kubectl) -> None:
    for pod in quickstart.list("pods", "--selector=app.kubernetes.io/instance=quickstart"):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in spec["containers"])
        assert not [volume for volume in spec["volumes"] if "projected" in volume]


def test_a_burst_scales_consumers_out_and_in_and_arrives_once(
    site: Site, quickstart: Kubectl, image: str, host_address: str
) -> None:
    kubectl = quickstart  # its users are the burst's too
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "burst-webhook"},
            "stringData": {"secret": SIGNING_SECRET},
        }
    )
    scaling = {"maxLagSeconds": 5, "intervalSeconds": 1, "cooldownSeconds": 5, "downWindowSeconds": 10}
    with serve_webhooks(host_address, SIGNING_SECRET, delay_seconds=0.1) as (url, receiver):
        webhook = {"url": url, "secretRef": {"name": "burst-webhook"}}
        channel = {"name": "slow", "type": "Webhook", "webhook": webhook}
        kubectl.apply(build_pipeline("burst", channel=channel, concurrency=10, scaling=scaling))
        wait_ready(site, "burst")
        run_burst(kubectl, image)
        seen: list[int] = []

        def is_over() -> bool:
            seen.append(kubectl.read("deployment", "burst-consumer")["spec"]["replicas"])
            is_done = kubectl.read("pod", "burst-client").get("status", {}).get("phase") in {"Succeeded", "Failed"}
            return is_done and sum(receiver.receipts.values()) >= count_accepted(kubectl)

        def explain() -> str:
            return f"received {len(receiver.receipts)}, refused {receiver.refused}, replicas {seen}\n{site.explain()}"

        wait_until(is_over, seconds=300, what="everything accepted was received", explain=explain)
        wait_until(
            lambda: kubectl.read("deployment", "burst-consumer")["spec"]["replicas"] == 1,
            seconds=180,
            what="the consumers came in again",
            explain=explain,
        )
        outcome = read_burst(kubectl)
        assert outcome["others"] == {}
        assert len(outcome["accepted"]) == BURST_SIZE
        assert set(receiver.receipts) == {f"{each}_slow" for each in outcome["accepted"]}
        assert {each: count for each, count in receiver.receipts.items() if count > 1} == {}
        assert receiver.refused == 0
        assert 1 < max(seen) <= PARTITIONS, seen
        events = kubectl.do("get", "events.events.k8s.io", "--field-selector=regarding.name=burst")
        assert "tocsin" in events
    kubectl.do("delete", PIPELINES, "burst")


def run_burst(kubectl: Kubectl, image: str) -> None:
    command = ["/opt/tocsin/bin/python", "-c", BURST, "http://burst-ingestion:8080/v1/notifications", str(BURST_SIZE)]
    container = {"name": "client", "image": image, "imagePullPolicy": "IfNotPresent", "command": command}
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "burst-client"},
            "spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]},
        }
    )


def read_burst(kubectl: Kubectl) -> dict[str, Any]:
    outcome: dict[str, Any] = json.loads(kubectl.do("logs", "burst-client").splitlines()[-1])
    return outcome


def count_accepted(kubectl: Kubectl) -> int:
    return len(read_burst(kubectl)["accepted"])


def test_what_is_posted_appears_on_an_open_screen(site: Site, quickstart: Kubectl, host_address: str) -> None:
    kubectl = quickstart
    with EmbeddedValkey(host=EVERYWHERE, password="of-a-test") as store:
        port = urlsplit(store.url).port
        assert port is not None
        kubectl.apply(
            *build_host_service("valkey", host_address, port, service_port=6379),
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "valkey"},
                "stringData": {"password": "of-a-test"},
            },
        )
        body = build_pipeline("screens", channel={"name": "screen", "type": "WebSocket"})
        body["spec"]["redis"] = {"url": "redis://valkey:6379/0", "credentialsSecretRef": {"name": "valkey"}}
        kubectl.apply(body)
        wait_ready(site, "screens")
        with forwarded(kubectl, "screens-ingestion") as url:
            address = f"{url.replace('http', 'ws', 1)}/v1/stream?user=2"
            with connect(address, open_timeout=30, close_timeout=1) as screen:
                notification = {"fromID": 1, "toID": 2, "message": "bonjour à tous"}
                answer = httpx.post(f"{url}/v1/notifications", json=notification, timeout=30)
                assert answer.status_code == 202, answer.text
                frame = json.loads(screen.recv(timeout=60))
        kubectl.do("delete", PIPELINES, "screens")
    assert (frame["id"], frame["message"], frame["channel"]) == (answer.json()["id"], "bonjour à tous", "screen")


def test_deleting_a_pipeline_leaves_nothing(site: Site, quickstart: Kubectl) -> None:
    kubectl = quickstart
    kubectl.apply(build_pipeline("brief", channel={"name": "log", "type": "Log"}))
    wait_ready(site, "brief")
    children = (CHILD_KINDS, "--selector=app.kubernetes.io/instance=brief")
    assert {each["kind"] for each in kubectl.list(*children)} == {
        *("ConfigMap", "ServiceAccount", "Service", "Deployment", "ReplicaSet", "Pod"),
        *("PodDisruptionBudget", "NetworkPolicy"),
    }
    kubectl.do("delete", "npl", "brief", "--timeout=60s")
    wait_until(lambda: not kubectl.list(*children), seconds=120, what="all children are gone", explain=site.explain)
    assert kubectl.read(PIPELINES, "brief") == {}


def test_a_manual_pipeline_follows_kubectl_scale(site: Site, quickstart: Kubectl) -> None:
    kubectl = quickstart
    kubectl.apply(build_pipeline("by-hand", channel={"name": "log", "type": "Log"}, scaling={"mode": "Manual"}))
    wait_ready(site, "by-hand")
    kubectl.do("scale", "npl/by-hand", "--replicas=2")
    wait_until(
        lambda: kubectl.read(PIPELINES, "by-hand")["status"]["consumer"].get("readyReplicas") == 2,
        seconds=120,
        what="two consumers are ready",
        explain=site.explain,
    )
    kubectl.do("delete", "npl", "by-hand")


def test_a_suspended_pipeline_runs_no_pods_and_comes_back(site: Site, quickstart: Kubectl) -> None:
    kubectl = quickstart
    kubectl.apply(build_pipeline("paused", channel={"name": "log", "type": "Log"}))
    wait_ready(site, "paused")
    pods = ("pods", "--selector=app.kubernetes.io/instance=paused")
    kubectl.do("patch", "npl", "paused", "--type=merge", "--patch", '{"spec": {"suspend": true}}')
    wait_until(lambda: not kubectl.list(*pods), seconds=120, what="no pod is left", explain=site.explain)
    kubectl.do("patch", "npl", "paused", "--type=merge", "--patch", '{"spec": {"suspend": false}}')
    wait_until(lambda: len(kubectl.list(*pods)) == 3, seconds=120, what="its pods are back", explain=site.explain)
    kubectl.do("delete", "npl", "paused")
