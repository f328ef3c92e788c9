"""The chart with its defaults: an operator for every namespace, which may read no Secret until somebody lets it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

import pipelines
from e2e.cluster import PIPELINES, SMALL, Kubectl, find_other_pipelines, run_command, wait_until
from e2e.release import CHART, Release, helm, installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SAID_SECONDS = 120


@pytest.fixture(scope="module")
def release(image: str) -> Iterator[Release]:
    """Install the chart for the whole cluster, unless pipelines are there that it would take over."""
    if others := find_other_pipelines():
        pytest.skip(f"an operator for every namespace would take over the pipelines in {', '.join(others)}")
    with installed(image) as release:
        release.wait_ready()
        yield release


@pytest.fixture
def guarded(release: Release, kubectl: Kubectl) -> Kubectl:
    """A namespace with a pipeline whose Secret exists, and which nobody let the operator read."""
    del release  # it need only run
    changes: dict[str, Any] = {
        "spec.kafka.bootstrapServers": ["127.0.0.1:9"],
        "spec.kafka.securityProtocol": "SASL_PLAINTEXT",
        "spec.kafka.credentialsSecretRef": {"name": "credentials"},
        "spec.ingestion.resources": SMALL,
        "spec.consumer.resources": SMALL,
    }
    kubectl.do("create", "secret", "generic", "credentials", "--from-literal=username=a", "--from-literal=password=b")
    kubectl.do("create", "configmap", "orders-users", '--from-literal=users.yaml="1": {name: Ada}')
    kubectl.apply(pipelines.build_pipeline(changes, name="guarded"))
    return kubectl


def may(kubectl: Kubectl, release: Release, *words: str) -> bool:
    return kubectl.ask("auth", "can-i", f"--as={release.account}", *words).out.strip() == "yes"


def test_the_operator_may_do_its_work_in_any_namespace(release: Release, kubectl: Kubectl) -> None:
    assert may(kubectl, release, "patch", "deployments.apps/x")
    assert may(kubectl, release, "patch", "deployments.apps/x", "--subresource=scale")
    assert may(kubectl, release, "patch", f"{PIPELINES}/x", "--subresource=status")


@pytest.mark.parametrize(
    "words",
    [
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods"),
        ("get", "pods/x", "--subresource=proxy"),
        ("create", "pods/x", "--subresource=exec"),
        ("patch", f"{PIPELINES}/x"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("get", "nodes"),
    ],
    ids=" ".join,
)
def test_the_operator_may_do_nothing_else(release: Release, kubectl: Kubectl, words: tuple[str, ...]) -> None:
    assert not may(kubectl, release, *words)


def test_of_all_leases_the_operator_may_change_its_own(release: Release) -> None:
    assert may(release.kubectl, release, "update", "leases.coordination.k8s.io/tocsin")
    assert not may(release.kubectl, release, "update", "leases.coordination.k8s.io/another")


def test_whoever_may_edit_a_namespace_may_edit_its_pipelines(release: Release, kubectl: Kubectl) -> None:
    del release  # it brings the roles
    kubectl.do("create", "rolebinding", "editors", "--clusterrole=edit", "--user=edith")
    kubectl.do("create", "rolebinding", "viewers", "--clusterrole=view", "--user=victor")

    def answers() -> tuple[str, ...]:
        asks = [("edith", "create"), ("victor", "list"), ("victor", "create")]
        return tuple(kubectl.ask("auth", "can-i", f"--as={user}", verb, PIPELINES).out.strip() for user, verb in asks)

    # A controller copies aggregated rules, a moment later.
    wait_until(lambda: answers() == ("yes", "yes", "no"), seconds=30, what="the roles are aggregated", explain=answers)


def test_a_secret_it_may_not_read_is_named_with_the_command_that_allows_it(guarded: Kubectl) -> None:
    def find() -> dict[str, Any]:
        condition = guarded.conditions("guarded").get("KafkaReachable", {})
        return condition if condition.get("reason") == "SecretForbidden" else {}

    def explain() -> object:
        return guarded.conditions("guarded")

    condition = wait_until(find, seconds=SAID_SECONDS, what="the Secret is named", explain=explain)
    command = re.search(r"kubectl \S.* create rolebinding .*--serviceaccount=\S+", condition["message"])
    assert command, condition["message"]
    answer = run_command(*shlex.split(command[0].rstrip(".;")))
    assert answer.code == 0, answer.err
    wait_until(lambda: not find(), seconds=SAID_SECONDS, what="the Secret is read", explain=explain)


def test_an_upgrade_with_the_same_values_changes_no_pod(release: Release) -> None:
    before = {pod["metadata"]["name"] for pod in release.kubectl.list("pods")}
    words = ("upgrade", "tocsin", str(CHART), "--namespace", release.kubectl.namespace, "--reuse-values")
    answer = helm(*words, "--force-conflicts")
    assert answer.code == 0, answer.err
    release.wait_ready()
    assert {pod["metadata"]["name"] for pod in release.kubectl.list("pods")} == before


def test_the_lease_is_held_by_one_of_its_pods(release: Release) -> None:
    def holder() -> str:
        spec = release.kubectl.read("lease", "tocsin").get("spec", {})
        return str(spec.get("holderIdentity") or "")

    name = wait_until(holder, seconds=60, what="somebody leads", explain=release.logs)
    pods = [pod["metadata"]["name"] for pod in release.kubectl.list("pods")]
    assert name.partition("_")[0] in pods


def test_the_notes_name_this_release(release: Release) -> None:
    assert f"kubectl -n {release.kubectl.namespace} rollout status deployment/tocsin" in release.notes
    assert "curl -i http://localhost:8080/v1/notifications" in release.notes


def test_an_uninstall_keeps_pipelines_and_what_they_run(image: str, kubectl: Kubectl) -> None:
    # Without the aggregated roles: the module's own release has them under the same names, and would lose them here.
    values = (f"watchNamespaces={{{kubectl.namespace}}}", "rbac.aggregate=false")
    with installed(image, *values) as release:
        release.wait_ready()
        kubectl.apply(pipelines.build_pipeline({"spec.consumer.resources": SMALL, "spec.ingestion.resources": SMALL}))
        wait_until(
            lambda: len(kubectl.list("deployments")) == 2, seconds=60, what="it has Deployments", explain=release.logs
        )
    assert release.kubectl.read("deployment", "tocsin") == {}
    assert kubectl.read(PIPELINES, "a-pipeline")
    assert len(kubectl.list("deployments")) == 2
    kubectl.do("delete", PIPELINES, "a-pipeline")
    wait_until(lambda: not kubectl.list("deployments"), seconds=60, what="garbage collection needs no operator")
