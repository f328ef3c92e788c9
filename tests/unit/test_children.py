"""The builders: hardened, deterministic, owned, and silent about replicas."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines import Changes, parse_stored, prefix
from tocsin_operator.children import build_children
from tocsin_operator.children.deployments import Image, build_deployment
from tocsin_operator.children.naming import ROLES, Role, build_selector, find_pipeline_key, render_selector
from tocsin_operator.children.network import build_network_policy
from tocsin_operator.children.services import build_endpoint
from tocsin_operator.model import Pipeline

IMAGE = Image("docker.io/library/tocsin:1", "IfNotPresent")
SPEC: Changes = {
    "kafka": {
        "bootstrapServers": ["kafka:9093"],
        "securityProtocol": "SASL_SSL",
        "credentialsSecretRef": {"name": "kafka-user"},
        "tlsSecretRef": {"name": "kafka-tls"},
        "topic": {"name": "orders"},
    },
    "users": {"configMapRef": {"name": "people"}},
    "redis": {"url": "redis://valkey:6379", "credentialsSecretRef": {"name": "valkey"}},
    "consumer": {
        "channels": [
            {"name": "log", "type": "Log"},
            {"name": "hook", "type": "Webhook", "webhook": {"url": "https://e.org", "secretRef": {"name": "sign"}}},
        ],
        "replicas": 7,
    },
}


def pipeline_of(**consumer: Any) -> Pipeline:
    return parse_stored({"metadata.uid": "1-2-3", "spec": SPEC, **prefix("spec.consumer", consumer)})


def pod_of(role: Role, pipeline: Pipeline | None = None) -> dict[str, Any]:
    deployment = build_deployment(pipeline or pipeline_of(), role, IMAGE)
    return dict(deployment["spec"]["template"]["spec"])


def hash_of(pipeline: Pipeline, role: Role = "consumer") -> str:
    template = build_deployment(pipeline, role, IMAGE)["spec"]["template"]
    return str(template["metadata"]["annotations"]["tocsin.dev/config-hash"])


def test_the_same_pipeline_gives_the_same_children() -> None:
    assert build_children(pipeline_of(), IMAGE) == build_children(pipeline_of(), IMAGE)


def test_every_child_is_owned_by_the_pipeline_and_found_again_by_its_labels() -> None:
    for child in build_children(pipeline_of(), IMAGE):
        owner = child["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            "NotificationPipeline",
            "orders",
            "1-2-3",
            True,
        )
        assert find_pipeline_key(child) == "shop/orders"


def test_no_two_children_share_kind_and_name() -> None:
    names = [(child["kind"], child["metadata"]["name"]) for child in build_children(pipeline_of(), IMAGE)]
    assert len(set(names)) == len(names)


def test_what_is_not_ours_belongs_to_no_pipeline() -> None:
    assert find_pipeline_key({"metadata": {"namespace": "shop", "labels": {"app": "x"}}}) is None
    assert find_pipeline_key({"metadata": {"namespace": "shop"}}) is None


@pytest.mark.parametrize("role", ROLES)
def test_deployments_leave_replicas_to_their_owner(role: Role) -> None:
    assert "replicas" not in build_deployment(pipeline_of(), role, IMAGE)["spec"]


@pytest.mark.parametrize("role", ROLES)
def test_pods_pass_the_restricted_pod_security_standard(role: Role) -> None:
    pod = pod_of(role)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = pod["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("role", ROLES)
def test_pods_hold_no_token_for_the_kubernetes_api(role: Role) -> None:
    assert pod_of(role)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("role", ROLES)
def test_tmp_is_the_only_place_a_pod_may_write(role: Role) -> None:
    pod = pod_of(role)
    assert [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")] == [
        "/tmp"
    ]


@pytest.mark.parametrize("role", ROLES)
def test_every_mount_has_its_volume(role: Role) -> None:
    pod = pod_of(role)
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize("role", ROLES)
def test_a_pod_is_given_longer_to_stop_than_it_may_drain(role: Role) -> None:
    drain = {"ingestion": 5 + 20, "consumer": 30}[role]
    assert pod_of(role)["terminationGracePeriodSeconds"] > drain


@pytest.mark.parametrize("role", ROLES)
def test_the_pods_carry_the_labels_their_deployment_selects(role: Role) -> None:
    deployment = build_deployment(pipeline_of(), role, IMAGE)
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert render_selector(pipeline_of(), role).split(",") == sorted(f"{k}={v}" for k, v in selector.items())


def test_the_selectors_of_the_two_roles_are_disjoint() -> None:
    assert build_selector(pipeline_of(), "ingestion") != build_selector(pipeline_of(), "consumer")


def test_credentials_come_by_reference_into_the_environment() -> None:
    env = {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]
        for variable in pod_of("consumer")["containers"][0]["env"]
    }
    assert env["TOCSIN_KAFKA__PASSWORD"] == {"name": "kafka-user", "key": "password"}
    assert env["TOCSIN_REDIS__USERNAME"] == {"name": "valkey", "key": "username", "optional": True}


USERS: dict[str, tuple[Changes, dict[str, Any]]] = {
    "redis": (
        {"redis": {"url": "redis://people", "credentialsSecretRef": {"name": "people"}}},
        {
            "TOCSIN_USERS__REDIS__USERNAME": {"name": "people", "key": "username", "optional": True},
            "TOCSIN_USERS__REDIS__PASSWORD": {"name": "people", "key": "password"},
        },
    ),
    "http": (
        {"http": {"url": "https://users/{id}", "tokenSecretRef": {"name": "people"}}},
        {"TOCSIN_USERS__HTTP__TOKEN": {"name": "people", "key": "token"}},
    ),
    "nothing secret": ({"http": {"url": "https://users/{id}"}}, {}),
}


@pytest.mark.parametrize("name", USERS)
@pytest.mark.parametrize("role", ROLES)
def test_both_roles_are_given_the_credentials_of_the_user_directory_and_no_users_file(role: Role, name: str) -> None:
    users, expected = USERS[name]
    pod = pod_of(role, parse_stored({"spec": SPEC, "spec.users": users}))
    env = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in pod["containers"][0]["env"]}
    assert {key: value for key, value in env.items() if "USERS" in key} == expected
    assert "users" not in {volume["name"] for volume in pod["volumes"]}
    assert "users" not in {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}


def test_only_consumers_see_the_secrets_of_channels() -> None:
    assert "sign" in str(pod_of("consumer"))
    assert "sign" not in str(pod_of("ingestion"))


def test_channel_secrets_are_mounted_where_the_config_says() -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in pod_of("consumer")["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod_of("consumer")["volumes"]}
    assert volumes[mounts["/etc/tocsin/channels/hook"]]["secret"]["secretName"] == "sign"


def test_the_users_are_mounted_whole_so_that_running_pods_see_changes() -> None:
    mounts = pod_of("ingestion")["containers"][0]["volumeMounts"]
    assert all("subPath" not in mount for mount in mounts)


def test_pods_roll_when_the_config_changes_and_not_when_they_are_scaled() -> None:
    assert hash_of(pipeline_of(concurrency=1)) != hash_of(pipeline_of())
    assert hash_of(pipeline_of(replicas=3)) == hash_of(pipeline_of())
    assert hash_of(pipeline_of(scaling={"maxReplicas": 3})) == hash_of(pipeline_of())


def test_resources_of_the_spec_replace_the_defaults_whole() -> None:
    mine = {"requests": {"memory": "2Gi"}}
    assert pod_of("consumer", pipeline_of(resources=mine))["containers"][0]["resources"] == mine
    assert "limits" in pod_of("consumer")["containers"][0]["resources"]


def test_pods_run_the_image_they_are_told_to() -> None:
    container = pod_of("ingestion")["containers"][0]
    assert (container["image"], container["args"]) == (IMAGE.name, ["ingest"])


def test_nothing_but_metrics_reaches_a_consumer() -> None:
    rules = build_network_policy(pipeline_of(), "consumer")["spec"]["ingress"]
    assert [port["port"] for rule in rules for port in rule["ports"]] == [9090]


def test_ingestion_is_reached_on_its_api_from_everywhere() -> None:
    rules = build_network_policy(pipeline_of(), "ingestion")["spec"]["ingress"]
    assert {"ports": [{"protocol": "TCP", "port": 8080}]} in rules


def test_the_endpoint_names_the_service() -> None:
    assert build_endpoint(pipeline_of()) == "http://orders-ingestion.shop.svc:8080"
