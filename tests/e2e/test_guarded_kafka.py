"""A Kafka that asks who one is: SCRAM over TLS with a private CA, and rights that are missing until they are granted.

All of it comes from the pipeline's namespace: two Secrets, which its pods mount and which the operator may read there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

import pipelines
from e2e.cluster import SMALL, Kubectl, forwarded, wait_until
from e2e.conftest import Site
from e2e.host import EVERYWHERE, build_host_service
from tocsin_cli.embedded.kafka import BrokerSecurity, BrokerTLS, EmbeddedKafka

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SERVICE = "guarded"
PASSWORD = "correct horse=battery staple"
SAID_SECONDS = 120
READY_SECONDS = 240


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def guarded(site: Site, authority: trustme.CA, host_address: str) -> Iterator[EmbeddedKafka]:
    """A broker that knows ada and eve and grants them nothing, as `guarded:9093` in the site's namespace."""
    names = (host_address, SERVICE, f"{SERVICE}.{site.kubectl.namespace}.svc")
    security = BrokerSecurity(
        scram_sha_512_users={"ada": PASSWORD, "eve": PASSWORD},
        tls=build_broker_tls(authority, names),
        is_authorizing=True,
    )
    with EmbeddedKafka(host=EVERYWHERE, advertised_host=host_address, security=security) as kafka:
        port = int(kafka.bootstrap_servers.rpartition(":")[2])
        site.kubectl.apply(*build_host_service(SERVICE, host_address, port, service_port=9093))
        site.kubectl.do("create", "configmap", "orders-users", '--from-literal=users.yaml="1": {name: Ada}')
        create_secret(site.kubectl, "kafka-ca", {"ca.crt": authority.cert_pem.bytes().decode()})
        yield kafka
        site.kubectl.do("delete", "npl", "--all")


def build_broker_tls(authority: trustme.CA, names: tuple[str, ...]) -> BrokerTLS:
    leaf = authority.issue_cert(*names)
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return BrokerTLS(
        certificate_chain="".join(blob.bytes().decode() for blob in leaf.cert_chain_pems), private_key=pkcs8
    )


def create_secret(kubectl: Kubectl, name: str, data: dict[str, str]) -> None:
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})


def build_pipeline(name: str, *, user: str) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "spec.kafka.bootstrapServers": [f"{SERVICE}:9093"],
        "spec.kafka.securityProtocol": "SASL_SSL",
        "spec.kafka.credentialsSecretRef": {"name": user},
        "spec.kafka.tlsSecretRef": {"name": "kafka-ca"},
        "spec.kafka.topic": {"name": name, "partitions": 2},
        "spec.ingestion.replicas": 1,
        "spec.ingestion.resources": SMALL,
        "spec.consumer.resources": SMALL,
    }
    return pipelines.build_pipeline(changes, name=name)


def grant(kafka: EmbeddedKafka, user: str, prefix: str) -> None:
    """Let `user` do everything with topics and groups whose name holds what the pipeline is called."""
    client = AdminClient({"bootstrap.servers": kafka.internal_bootstrap_servers})
    names = [
        (ResourceType.TOPIC, prefix, ResourcePatternType.PREFIXED),
        (ResourceType.GROUP, "*", ResourcePatternType.LITERAL),
    ]
    bindings = [
        AclBinding(kind, name, pattern, f"User:{user}", "*", AclOperation.ALL, AclPermissionType.ALLOW)
        for kind, name, pattern in names
    ]
    for future in client.create_acls(bindings).values():
        future.result(10)


def wait_for_reason(site: Site, pipeline: str, reason: str) -> dict[str, Any]:
    def find() -> dict[str, Any]:
        return next((each for each in site.kubectl.conditions(pipeline).values() if each["reason"] == reason), {})

    def explain() -> str:
        return f"{site.kubectl.conditions(pipeline)}\n{site.explain()}"

    found: dict[str, Any] = wait_until(find, seconds=SAID_SECONDS, what=f"somebody says {reason}", explain=explain)
    return found


def test_a_topic_without_rights_is_named_and_works_once_they_are_granted(site: Site, guarded: EmbeddedKafka) -> None:
    kubectl = site.kubectl
    create_secret(kubectl, "ada", {"username": "ada", "password": PASSWORD})
    kubectl.apply(build_pipeline("orders", user="ada"))
    condition = wait_for_reason(site, "orders", "TopicNotAuthorized")
    assert "orders" in condition["message"]
    assert PASSWORD not in str(kubectl.conditions("orders"))

    grant(guarded, "ada", "orders")
    answer = kubectl.ask("wait", "--for=condition=Ready", "npl/orders", f"--timeout={READY_SECONDS}s")
    assert answer.code == 0, f"{kubectl.conditions('orders')}\n{site.explain()}"
    with forwarded(kubectl, "orders-ingestion") as url:
        body = {"fromID": 1, "toID": 1, "message": "over TLS"}
        accepted = httpx.post(f"{url}/v1/notifications", json=body, timeout=30)
    assert accepted.status_code == 202, accepted.text
    wait_until(
        lambda: accepted.json()["id"] in kubectl.do("logs", "deployment/orders-consumer", "--tail=-1"),
        seconds=60,
        what="the consumer logs the notification",
        explain=site.explain,
    )


def test_a_wrong_password_is_named_and_not_shown(site: Site, guarded: EmbeddedKafka) -> None:
    del guarded  # it refuses
    create_secret(site.kubectl, "eve", {"username": "eve", "password": "no-such-password"})
    site.kubectl.apply(build_pipeline("wrong-password", user="eve"))
    condition = wait_for_reason(site, "wrong-password", "KafkaNotAuthenticated")
    assert condition["status"] != "True" or condition["type"] == "Degraded"
    pods = site.kubectl.do(
        "get", "pods,configmaps,npl", "-o", "yaml", "--selector=app.kubernetes.io/instance=wrong-password"
    )
    assert "no-such-password" not in pods + str(site.kubectl.conditions("wrong-password"))
