"""What the chart installs, read from the rendered manifest; what its values refuse; and what its check notices.

The rendered manifest is compared with the chart by `make check`, so these tests need no helm. The few that render with
other values do, and are skipped aloud where there is none.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

import tocsin_consumer.metrics
import tocsin_ingestion.metrics
import tocsin_operator.metrics
from documentation import ROOT, find_block
from pipelines import parse_stored
from tocsin_consumer.metrics import Outcome
from tocsin_ingestion.problems import KINDS
from tocsin_operator.children.deployments import Image, build_deployment
from tocsin_operator.children.naming import ROLES, Role
from tocsin_operator.children.network import DNS_PORTS
from tocsin_operator.scaling_metrics import ScalingMetrics

CHART = ROOT / "charts" / "tocsin"
needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="no helm on PATH: nothing can render the chart")


@pytest.fixture(scope="module")
def check() -> ModuleType:
    specification = importlib.util.spec_from_file_location("charts_check", ROOT / "charts" / "check.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def installed() -> list[dict[str, Any]]:
    text = (ROOT / "manifests" / "install.yaml").read_text(encoding="utf-8")
    return [each for each in yaml.safe_load_all(text) if each]


def render(check: ModuleType, values: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(check.render_chart(values)) if each]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] == kind]


def the(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)
    return found


def pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = the(objects, "Deployment", "tocsin")["spec"]["template"]["spec"]
    return spec


def rules(objects: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    roles = of_kind(objects, "ClusterRole") + of_kind(objects, "Role")
    return [(role["metadata"]["name"], rule) for role in roles for rule in role["rules"]]


def test_the_operator_runs_hardened(installed: list[dict[str, Any]]) -> None:
    spec = pod(installed)
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]


def test_the_operator_is_two_and_survives_a_drain(installed: list[dict[str, Any]]) -> None:
    deployment = the(installed, "Deployment", "tocsin")
    budget = the(installed, "PodDisruptionBudget", "tocsin")
    assert deployment["spec"]["replicas"] == 2
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    (spread,) = pod(installed)["topologySpreadConstraints"]
    assert spread["labelSelector"] == deployment["spec"]["selector"]


def test_every_probe_asks_the_port_for_health(installed: list[dict[str, Any]]) -> None:
    (container,) = pod(installed)["containers"]
    assert container["ports"] == [{"name": "health", "containerPort": 9090}]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_pipelines_get_the_operators_own_image(installed: list[dict[str, Any]]) -> None:
    (container,) = pod(installed)["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["TOCSIN_OPERATOR_IMAGE"] == container["image"]


def test_nothing_is_allowed_by_a_star(installed: list[dict[str, Any]]) -> None:
    for name, rule in rules(installed):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], name


def test_nobody_may_proxy_to_pods_or_run_in_them(installed: list[dict[str, Any]]) -> None:
    resources = {resource for _, rule in rules(installed) for resource in rule["resources"]}
    assert not {each for each in resources if each.startswith(("pods/", "nodes"))}


def test_secrets_are_read_where_somebody_bound_it_and_nowhere_else(installed: list[dict[str, Any]]) -> None:
    readers = {name: rule["verbs"] for name, rule in rules(installed) if "secrets" in rule["resources"]}
    assert readers == {"tocsin-secret-reader": ["get"]}
    bindings = of_kind(installed, "ClusterRoleBinding") + of_kind(installed, "RoleBinding")
    assert "tocsin-secret-reader" not in {binding["roleRef"]["name"] for binding in bindings}


def test_of_all_leases_the_operator_may_change_its_own(installed: list[dict[str, Any]]) -> None:
    on_leases = [rule for _, rule in rules(installed) if "leases" in rule["resources"]]
    granted = {(verb, *rule.get("resourceNames", ())) for rule in on_leases for verb in rule["verbs"]}
    (container,) = pod(installed)["containers"]
    (name,) = (each["value"] for each in container["env"] if each["name"] == "TOCSIN_OPERATOR_LEASE_NAME")
    assert granted == {("create",), ("get", name), ("update", name)}


def test_the_operator_does_not_write_pipelines(installed: list[dict[str, Any]]) -> None:
    role = the(installed, "ClusterRole", "tocsin")
    verbs = {verb for rule in role["rules"] if "notificationpipelines" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}


def test_every_binding_names_a_role_and_an_account_that_are_installed(installed: list[dict[str, Any]]) -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in installed}
    for binding in of_kind(installed, "ClusterRoleBinding") + of_kind(installed, "RoleBinding"):
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in names
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["name"]) in names


def test_namespace_roles_reach_pipelines(installed: list[dict[str, Any]]) -> None:
    aggregated = {
        label.rpartition("/")[2]
        for role in of_kind(installed, "ClusterRole")
        for label in role["metadata"]["labels"]
        if label.startswith("rbac.authorization.k8s.io/")
    }
    assert aggregated == {"aggregate-to-admin", "aggregate-to-edit", "aggregate-to-view"}


def test_the_crd_outlives_an_uninstall(installed: list[dict[str, Any]]) -> None:
    (crd,) = of_kind(installed, "CustomResourceDefinition")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_crd_it_installs_is_the_operators(installed: list[dict[str, Any]]) -> None:
    source = ROOT / "operator" / "tocsin_operator" / "crd" / "notificationpipelines.yaml"
    (crd,) = of_kind(installed, "CustomResourceDefinition")
    assert crd["spec"] == yaml.safe_load(source.read_text(encoding="utf-8"))["spec"]


def test_the_readme_asks_for_the_kubernetes_that_the_chart_asks_for() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    told = re.search(r"Kubernetes (\d+\.\d+) or newer", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert told is not None
    assert chart["kubeVersion"] == f">={told[1]}.0-0"


def test_the_readmes_way_without_helm_changes_every_image(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\n[ "$*" = "apply --server-side -f -" ] && cat > {tmp_path}/applied.yaml\n')
    kubectl.chmod(0o755)
    script = find_block("README.md", "manifests/install.yaml")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=environment, check=True)
    text = (tmp_path / "applied.yaml").read_text(encoding="utf-8")
    (container,) = pod([each for each in yaml.safe_load_all(text) if each])["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert container["image"] == environment["TOCSIN_OPERATOR_IMAGE"] == "registry.example.org/tocsin:0.1.0"
    assert "docker.io" not in text


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 3},
        {"image": {"name": "tocsin"}},
        {"watchNamespaces": "team-a"},
        {"log": {"level": "verbose"}},
        {"image": {"tag": 1.0}},
        {"networkPolicy": {"egress": {"kafkaPorts": [0]}}},
    ],
    ids=str,
)
def test_a_mistake_in_the_values_is_refused(values: dict[str, Any]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)


def test_the_check_finds_nothing_to_say(check: ModuleType) -> None:
    assert [*check.check_copies(writes=False), *check.check_values()] == []


def test_the_check_notices_a_copy_that_drifted(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "crd.yaml"
    copy.write_text("drifted", encoding="utf-8")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "CRD_COPIES", (copy,))
    assert list(check.check_copies(writes=False)) == [
        "crd.yaml differs from its source: run 'make render' and commit the result"
    ]


def test_the_check_makes_the_copies_when_asked(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "new" / "crd.yaml"
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "CRD_COPIES", (copy,))
    assert list(check.check_copies(writes=True)) == []
    assert copy.read_bytes() == check.CRD.read_bytes()


def test_without_helm_the_check_says_aloud_what_it_did_not_do(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert check.main([]) == 0
    assert "NOT CHECKED: no helm on PATH" in capsys.readouterr().out


def test_an_object_without_a_name_is_a_problem(check: ModuleType) -> None:
    (problem,) = check.find_broken_objects([{"apiVersion": "v1", "kind": "Service", "metadata": {}}])
    assert "no apiVersion, kind or name" in problem


def test_an_object_rendered_twice_is_a_problem(check: ModuleType) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}
    (problem,) = check.find_broken_objects([service, service])
    assert "rendered twice" in problem


@needs_helm
def test_the_chart_renders_in_every_variant_and_the_manifest_is_current(check: ModuleType) -> None:
    assert [*check.check_install(writes=False), *check.check_renderings()] == []


@needs_helm
def test_watching_namespaces_needs_nothing_cluster_wide(check: ModuleType) -> None:
    objects = render(check, {"watchNamespaces": ["a", "b"], "crds": {"install": False}, "rbac": {"aggregate": False}})
    assert of_kind(objects, "ClusterRole") + of_kind(objects, "ClusterRoleBinding") == []
    assert {role["metadata"]["namespace"] for role in of_kind(objects, "Role")} == {"a", "b", "tocsin"}


@needs_helm
def test_watched_namespaces_reach_the_operator(check: ModuleType) -> None:
    (container,) = pod(render(check, {"watchNamespaces": ["a", "b"]}))["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["TOCSIN_OPERATOR_WATCH_NAMESPACES"] == "a,b"


@needs_helm
def test_a_confined_operator_resolves_names_where_pipelines_do(check: ModuleType) -> None:
    policy = the(render(check, {"networkPolicy": {"egress": {"enabled": True}}}), "NetworkPolicy", "tocsin")["spec"]
    assert policy["egress"][0]["ports"] == DNS_PORTS


@needs_helm
def test_secrets_of_a_named_namespace_may_be_read(check: ModuleType) -> None:
    objects = render(check, {"secretNamespaces": ["team-a"]})
    bound = [
        each["metadata"]["namespace"]
        for each in of_kind(objects, "RoleBinding")
        if each["roleRef"]["name"] == "tocsin-secret-reader"
    ]
    assert bound == ["team-a"]


WATCHED = {each: {"enabled": True} for each in ("serviceMonitor", "podMonitor", "prometheusRule")}


def test_nothing_of_the_prometheus_operator_is_installed_unless_asked_for(installed: list[dict[str, Any]]) -> None:
    assert not [each for each in installed if each["apiVersion"].startswith("monitoring.coreos.com")]


@needs_helm
@pytest.mark.parametrize("role", ROLES)
def test_the_pods_of_pipelines_are_monitored_under_their_pipelines_name(check: ModuleType, role: Role) -> None:
    monitor = the(render(check, WATCHED), "PodMonitor", "tocsin-pipelines")["spec"]
    template = build_deployment(parse_stored({}), role, Image("tocsin"))["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["namespaceSelector"] == {"any": True}
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    found = {"__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", name): value for name, value in labels.items()}
    targets = {each["targetLabel"]: found[each["sourceLabels"][0]] for each in endpoint["relabelings"]}
    assert targets == {"pipeline": "orders", "role": role}


@needs_helm
def test_watched_namespaces_alone_are_monitored(check: ModuleType) -> None:
    monitor = the(render(check, {**WATCHED, "watchNamespaces": ["a", "b"]}), "PodMonitor", "tocsin-pipelines")
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["a", "b"]}


@needs_helm
def test_every_alert_asks_for_metrics_and_labels_that_exist(check: ModuleType) -> None:
    (group,) = the(render(check, WATCHED), "PrometheusRule", "tocsin")["spec"]["groups"]
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"]) == 6
    known = {**list_metrics(tocsin_consumer.metrics, tocsin_ingestion.metrics), **list_scaling_metrics()}
    for rule in group["rules"]:
        names = set(re.findall(r"\btocsin_\w+", rule["expr"]))
        assert names
        assert names <= known.keys(), rule["alert"]
        given = {"namespace", "pipeline", *(label for name in names for label in known[name])}
        asked = {label for labels in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in labels.split(", ")}
        asked |= set(re.findall(r"[{,](\w+)=", rule["expr"]))
        asked |= set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert asked <= given, rule["alert"]


@needs_helm
def test_alerts_on_refusals_and_dead_letters_name_what_the_services_count(check: ModuleType) -> None:
    (group,) = the(render(check, WATCHED), "PrometheusRule", "tocsin")["spec"]["groups"]
    expressions = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    reasons = re.search(r'reason=~"([^"]+)"', expressions["TocsinIngestionRefuses"])
    assert reasons
    assert {*reasons[1].split("|"), "draining"} == {kind.name for kind in KINDS if kind.status == 503}
    assert f'outcome="{Outcome.DEAD_LETTERED}"' in expressions["TocsinDeadLetters"]
    assert expressions["TocsinLagAbovePromise"].endswith("> 60")


def list_metrics(*modules: ModuleType) -> dict[str, tuple[str, ...]]:
    """Return the names of the metrics that the modules define, as a scrape sees them, with their labels."""
    found: dict[str, tuple[str, ...]] = {}
    for each in (value for module in modules for value in vars(module).values()):
        if isinstance(each, MetricWrapperBase):
            found[each._name + ("_total" if each._type == "counter" else "")] = tuple(each._labelnames)
    return found


def list_scaling_metrics() -> dict[str, tuple[str, ...]]:
    metrics = ScalingMetrics(CollectorRegistry())
    gauges = {each._name: tuple(each._labelnames) for each in metrics._gauges.values()}
    return {**gauges, **list_metrics(tocsin_operator.metrics)}


@needs_helm
def test_a_digest_wins_over_the_tag(check: ModuleType) -> None:
    digest = "sha256:" + "0" * 64
    (container,) = pod(render(check, {"image": {"tag": "dev", "digest": digest}}))["containers"]
    assert container["image"] == f"docker.io/library/tocsin@{digest}"


@needs_helm
def test_an_account_of_ones_own_must_be_named(check: ModuleType) -> None:
    with pytest.raises(check.CheckFailed, match=r"serviceAccount\.name: name the ServiceAccount to use"):
        check.render_chart({"serviceAccount": {"create": False}})


@needs_helm
def test_helm_itself_refuses_an_unknown_value(check: ModuleType) -> None:
    with pytest.raises(check.CheckFailed, match="replica"):
        check.render_chart({"replica": 3})


@needs_helm
def test_the_notes_end_in_commands_for_this_release(check: ModuleType) -> None:
    # `helm template` leaves the notes out, a dry run of an installation prints them.
    done = check._helm("install", "mine", CHART, "-n", "there", "--dry-run=client", "--set", "crds.install=false")
    notes = done.stdout.partition("NOTES:")[2]
    assert "kubectl -n there rollout status deployment/mine-tocsin" in notes
    assert "curl -i http://localhost:8080/v1/notifications" in notes
