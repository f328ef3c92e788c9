"""The reconciler against a real API server: it makes, repairs, leaves alone, and then leaves nothing behind.

Pipelines here are suspended or have an image that does not exist, so that no test waits for pods; what runs in pods is
tested elsewhere. Kafka is real.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import PIPELINES, Kubectl, wait_until
from e2e.operator_process import OperatorProcess
from pipelines import build_pipeline, prefix
from tocsin_cli.embedded.kafka import EmbeddedKafka

pytestmark = [pytest.mark.cluster, pytest.mark.kafka]

CHILD_KINDS = (
    "deployments",
    "services",
    "configmaps",
    "serviceaccounts",
    "networkpolicies.networking.k8s.io",
    "poddisruptionbudgets",
)
MINE = ("--show-managed-fields", "--selector=app.kubernetes.io/managed-by=tocsin-operator")
USERS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "people"},
    "data": {"users.yaml": '"1": {name: Ada}\n'},
}
IDLE_SECONDS = 30.0
PATIENCE_SECONDS = 90.0


@pytest.fixture
def operator(kubectl: Kubectl, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator for this test's namespace, whose pods' image nobody can pull."""
    with OperatorProcess(kubectl.namespace, tmp_path / "operator.log", image="example.invalid/tocsin:none") as process:
        yield process


@pytest.fixture
def topic_name(kubectl: Kubectl) -> str:
    """A topic of this test's own."""
    return kubectl.namespace


def pipeline_of(brokers: str, topic: str, **spec: Any) -> dict[str, Any]:
    changes = {
        "spec.kafka.bootstrapServers": [brokers],
        "spec.kafka.topic": {"name": topic, "partitions": 3},
        "spec.users.configMapRef.name": "people",
    }
    return build_pipeline({**changes, **prefix("spec", spec)}, name="orders")


def list_children(kubectl: Kubectl) -> dict[str, dict[str, Any]]:
    found = [item for kind in CHILD_KINDS for item in kubectl.list(kind, *MINE)]
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in found}


def wait_for_children(kubectl: Kubectl, operator: OperatorProcess) -> dict[str, dict[str, Any]]:
    def are_there() -> dict[str, dict[str, Any]]:
        children = list_children(kubectl)
        return children if len(children) == 9 and replicas_owner(children) == "tocsin-scaler" else {}

    found: dict[str, dict[str, Any]] = wait_until(
        are_there, seconds=PATIENCE_SECONDS, what="nine children", explain=lambda: operator.log
    )
    return found


def replicas_owner(children: dict[str, dict[str, Any]]) -> str:
    fields = children["Deployment/orders-consumer"]["metadata"].get("managedFields", [])
    owners = [each["manager"] for each in fields if "f:replicas" in each["fieldsV1"].get("f:spec", {})]
    return ",".join(owners)


def wait_for_reason(kubectl: Kubectl, operator: OperatorProcess, kind: str, reason: str) -> str:
    def has_it() -> str:
        condition = kubectl.conditions("orders").get(kind, {})
        return str(condition["message"]) if condition.get("reason") == reason else ""

    explain = lambda: f"{kubectl.conditions('orders')}\n{operator.log}"  # noqa: E731
    return str(wait_until(has_it, seconds=PATIENCE_SECONDS, what=f"{kind} {reason}", explain=explain))


def test_a_pipeline_gets_its_children_and_deleting_it_leaves_nothing(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    kubectl.apply(USERS, pipeline_of(kafka.bootstrap_servers, topic_name, suspend=True))
    children = wait_for_children(kubectl, operator)
    assert all(child["metadata"]["ownerReferences"][0]["name"] == "orders" for child in children.values())
    body = kubectl.read(PIPELINES, "orders")
    assert "finalizers" not in body["metadata"]
    assert set(body["metadata"].get("annotations", {})) <= {"kubectl.kubernetes.io/last-applied-configuration"}
    kubectl.do("delete", PIPELINES, "orders", "--timeout=30s")
    wait_until(
        lambda: not list_children(kubectl),
        seconds=PATIENCE_SECONDS,
        what="no children",
        explain=lambda: list_children(kubectl),
    )
    time.sleep(3)  # an operator that made them again would have done so by now
    assert not list_children(kubectl)


def test_drift_is_repaired_and_a_deleted_child_comes_back(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    kubectl.apply(USERS, pipeline_of(kafka.bootstrap_servers, topic_name, suspend=True))
    wait_for_children(kubectl, operator)
    image = '{"spec":{"template":{"spec":{"containers":[{"name":"ingestion","image":"example.invalid/other"}]}}}}'
    kubectl.do("patch", "deployment", "orders-ingestion", "--patch", image)
    kubectl.do("delete", "service", "orders-ingestion")
    kubectl.do("label", "configmap", "orders-config", "app.kubernetes.io/managed-by-")

    def is_repaired() -> bool:
        children = list_children(kubectl)
        deployment = children["Deployment/orders-ingestion"]
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        return len(children) == 9 and container["image"] == "example.invalid/tocsin:none"

    wait_until(is_repaired, seconds=PATIENCE_SECONDS, what="drift repaired", explain=lambda: operator.log)


def test_applying_again_keeps_the_replicas_of_the_scaler(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    kubectl.apply(USERS, pipeline_of(kafka.bootstrap_servers, topic_name))
    wait_for_children(kubectl, operator)
    consumer = {"channels": [{"name": "log", "type": "Log"}], "concurrency": 5}
    before = kubectl.read("deployment", "orders-consumer")
    scale = ["scale", "deployment", "orders-consumer", "--replicas=3"]
    kubectl.do(*scale)
    kubectl.apply(pipeline_of(kafka.bootstrap_servers, topic_name, consumer=consumer))

    def is_rolled() -> dict[str, Any]:
        after = kubectl.read("deployment", "orders-consumer")
        is_new = after["spec"]["template"]["metadata"] != before["spec"]["template"]["metadata"]
        return after if is_new else {}

    after = wait_until(is_rolled, seconds=PATIENCE_SECONDS, what="a new template", explain=lambda: operator.log)
    assert after["spec"]["replicas"] == 3


def test_the_scale_subresource_of_a_manual_pipeline_reaches_its_deployment(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    consumer = {"channels": [{"name": "log", "type": "Log"}], "replicas": 1, "scaling": {"mode": "Manual"}}
    kubectl.apply(USERS, pipeline_of(kafka.bootstrap_servers, topic_name, consumer=consumer))
    wait_for_children(kubectl, operator)
    kubectl.do("scale", PIPELINES, "orders", "--replicas=2")

    def replicas() -> int:
        return int(kubectl.read("deployment", "orders-consumer")["spec"]["replicas"])

    wait_until(lambda: replicas() == 2, seconds=PATIENCE_SECONDS, what="two replicas", explain=lambda: operator.log)


def test_suspending_stops_every_pod_and_resuming_starts_them_again(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    kubectl.apply(USERS, pipeline_of(kafka.bootstrap_servers, topic_name))
    wait_for_children(kubectl, operator)

    def replicas() -> list[int]:
        names = ("orders-ingestion", "orders-consumer")
        return [int(kubectl.read("deployment", name)["spec"]["replicas"]) for name in names]

    assert replicas() == [2, 1]
    kubectl.apply(pipeline_of(kafka.bootstrap_servers, topic_name, suspend=True))
    wait_until(lambda: replicas() == [0, 0], seconds=PATIENCE_SECONDS, what="no replicas", explain=lambda: operator.log)
    assert "spec.suspend" in wait_for_reason(kubectl, operator, "Ready", "Suspended")
    kubectl.apply(pipeline_of(kafka.bootstrap_servers, topic_name, suspend=False))
    wait_until(
        lambda: replicas() == [2, 1], seconds=PATIENCE_SECONDS, what="replicas again", explain=lambda: operator.log
    )


def test_a_pipeline_at_rest_causes_no_writes_at_all(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    kubectl.apply(USERS, pipeline_of(kafka.bootstrap_servers, topic_name, suspend=True))
    wait_for_children(kubectl, operator)
    wait_for_reason(kubectl, operator, "Ready", "Suspended")

    def versions() -> dict[str, str]:
        objects = {**list_children(kubectl), "pipeline": kubectl.read(PIPELINES, "orders")}
        return {name: body["metadata"]["resourceVersion"] for name, body in objects.items()}

    time.sleep(10)  # first facts come in: the topic's, the scaler's
    before = versions()
    events_before = len(kubectl.list("events", "--field-selector=involvedObject.kind=NotificationPipeline"))
    time.sleep(IDLE_SECONDS)
    assert versions() == before, operator.log
    events = kubectl.list("events", "--field-selector=involvedObject.kind=NotificationPipeline")
    assert len(events) == events_before


def test_an_object_that_is_somebody_elses_is_left_alone(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "orders-config"}, "data": {"a": "b"}}
    kubectl.apply(USERS, theirs, pipeline_of(kafka.bootstrap_servers, topic_name, suspend=True))
    assert "orders-config" in wait_for_reason(kubectl, operator, "Degraded", "NameTaken")
    assert kubectl.read("configmap", "orders-config")["data"] == {"a": "b"}


def test_missing_users_are_named_with_the_command_that_brings_them(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    kubectl.apply(pipeline_of(kafka.bootstrap_servers, topic_name, suspend=True))
    assert "create configmap people --from-file=users.yaml" in wait_for_reason(
        kubectl, operator, "Degraded", "UsersMissing"
    )
    kubectl.apply({**USERS, "data": {"wrong.yaml": ""}})
    assert "wrong.yaml" in wait_for_reason(kubectl, operator, "Degraded", "UsersKeyMissing")
    kubectl.apply(USERS)
    wait_for_reason(kubectl, operator, "Degraded", "AsExpected")


def test_an_unreachable_broker_is_named(kubectl: Kubectl, operator: OperatorProcess) -> None:
    kubectl.apply(USERS, pipeline_of("127.0.0.1:9", "nowhere", suspend=True))
    assert "127.0.0.1:9" in wait_for_reason(kubectl, operator, "Degraded", "KafkaUnavailable")


def test_an_external_topic_that_is_not_there_is_named(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    body = pipeline_of(kafka.bootstrap_servers, topic_name)
    body["spec"]["kafka"]["topic"] = {"name": topic_name, "management": "External"}
    kubectl.apply(USERS, body)
    assert topic_name in wait_for_reason(kubectl, operator, "Ready", "TopicMissing")


def test_an_image_that_cannot_be_pulled_is_named(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    kubectl.apply(USERS, pipeline_of(kafka.bootstrap_servers, topic_name))
    message = wait_for_reason(kubectl, operator, "Ready", "ImagePullFailed")
    assert "example.invalid/tocsin:none" in message


def test_a_missing_secret_is_named(
    kubectl: Kubectl, operator: OperatorProcess, kafka: EmbeddedKafka, topic_name: str
) -> None:
    webhook = {"url": "https://example.invalid/", "secretRef": {"name": "signing"}}
    consumer = {"channels": [{"name": "hook", "type": "Webhook", "webhook": webhook}]}
    kubectl.apply(USERS, pipeline_of(kafka.bootstrap_servers, topic_name, consumer=consumer))

    def message() -> str:
        text = str(kubectl.conditions("orders").get("Degraded", {}).get("message", ""))
        return text if 'secret "signing" not found' in text else ""

    text = wait_until(message, seconds=PATIENCE_SECONDS, what="the Secret's name", explain=lambda: operator.log)
    assert f"create it in namespace {kubectl.namespace}" in text
