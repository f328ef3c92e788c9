"""What users get wrong: in each case a condition names the cause, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import pipelines
from e2e.cluster import SMALL, wait_until
from e2e.conftest import Site

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SAID_SECONDS = 120
USERS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "orders-users"},
    "data": {"users.yaml": '"1": {name: Ada}'},
}
# Several pipelines at once must fit on a small node.
MODEST = {"spec.ingestion.resources": SMALL, "spec.consumer.resources": SMALL, "spec.ingestion.replicas": 1}
SASL = {"spec.kafka.securityProtocol": "SASL_PLAINTEXT", "spec.kafka.credentialsSecretRef": {"name": "no-such-secret"}}


class Mistake(NamedTuple):
    """A pipeline with one mistake, and where and how its status must name it."""

    name: str
    changes: dict[str, Any]
    condition: str
    reason: str
    words: tuple[str, ...]


MISTAKES = (
    Mistake(
        "no-broker",
        {"spec.kafka.bootstrapServers": ["kafka-nowhere:9092"]},
        "KafkaReachable",
        "BrokerUnreachable",
        ("kafka-nowhere", "check"),
    ),
    Mistake("no-secret", SASL, "KafkaReachable", "SecretMissing", ("no-such-secret", "kubectl", "create secret")),
    Mistake(
        "no-users",
        {"spec.users.configMapRef.name": "no-such-users"},
        "Degraded",
        "UsersMissing",
        ("no-such-users", "create configmap", "users.yaml"),
    ),
    Mistake(
        "no-topic",
        {"spec.kafka.topic": {"name": "no-such-topic", "management": "External"}},
        "Ready",
        "TopicMissing",
        ("no-such-topic",),
    ),
)


def build_pipeline(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    return pipelines.build_pipeline({"spec.kafka.topic.name": name, **MODEST, **changes}, name=name)


@pytest.fixture(scope="module")
def mistakes(site: Site) -> Iterator[Site]:
    """Apply all of them at once: the operator takes them side by side, and so does the waiting."""
    site.kubectl.apply(USERS)
    site.kubectl.apply(*(build_pipeline(mistake.name, mistake.changes) for mistake in MISTAKES))
    yield site
    site.kubectl.do("delete", "npl", "--all")


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_the_status_names_the_cause_and_the_fix(mistakes: Site, mistake: Mistake) -> None:
    def find() -> dict[str, Any]:
        condition = mistakes.kubectl.conditions(mistake.name).get(mistake.condition, {})
        return condition if condition.get("reason") == mistake.reason else {}

    def explain() -> str:
        conditions = mistakes.kubectl.conditions(mistake.name).values()
        said = [f"{each['type']}={each['status']} {each['reason']}: {each['message']}" for each in conditions]
        return "\n".join([*said, mistakes.explain()])

    condition = wait_until(
        find, seconds=SAID_SECONDS, what=f"{mistake.condition} says {mistake.reason}", explain=explain
    )
    for word in mistake.words:
        assert word in condition["message"]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_pipeline_that_cannot_work_is_not_ready(mistakes: Site, mistake: Mistake) -> None:
    def is_unready() -> bool:
        return mistakes.kubectl.conditions(mistake.name).get("Ready", {}).get("status") == "False"

    wait_until(is_unready, seconds=SAID_SECONDS, what="Ready is False", explain=mistakes.explain)


def test_a_mistake_that_is_mended_is_forgotten(site: Site) -> None:
    kubectl = site.kubectl
    kubectl.apply(build_pipeline("mended", {"spec.users.configMapRef.name": "late-users"}))
    wait_until(
        lambda: kubectl.conditions("mended").get("Degraded", {}).get("reason") == "UsersMissing",
        seconds=SAID_SECONDS,
        what="the missing ConfigMap is named",
        explain=site.explain,
    )
    kubectl.apply({**USERS, "metadata": {"name": "late-users"}})
    wait_until(
        lambda: kubectl.conditions("mended").get("Ready", {}).get("status") == "True",
        seconds=240,
        what="the pipeline is ready",
        explain=site.explain,
    )
    assert kubectl.conditions("mended")["Degraded"]["status"] == "False"


def test_an_image_that_cannot_be_pulled_is_named(site: Site) -> None:
    kubectl = site.kubectl
    kubectl.apply(USERS)
    kubectl.apply(build_pipeline("no-image", {}))
    site.release.kubectl.do("set", "env", "deployment/tocsin", "TOCSIN_OPERATOR_IMAGE=docker.io/library/tocsin:nowhere")
    try:
        condition = wait_until(
            lambda: next(
                (c for c in kubectl.conditions("no-image").values() if c["reason"] == "ImagePullFailed"), None
            ),
            seconds=240,
            what="the image is named",
            explain=site.explain,
        )
        assert "docker.io/library/tocsin:nowhere" in condition["message"]
        assert "image.* in the chart's values" in condition["message"]
    finally:
        site.release.kubectl.do("rollout", "undo", "deployment/tocsin")
        site.release.wait_ready()
        kubectl.do("delete", "npl", "no-image")
