from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import SecretStr

from pipelines import parse_stored, prefix
from tocsin_core.admin import KafkaAdmin
from tocsin_core.settings import KafkaConnection
from tocsin_operator.errors import AccessForbidden, KubernetesFailure, ObjectMissing
from tocsin_operator.kafka_clusters import (
    ConnectionInvalid,
    KafkaClusters,
    SecretForbidden,
    SecretIncomplete,
    SecretMissing,
    name_cluster,
    qualify_brokers,
)
from tocsin_operator.model import Pipeline

FORBIDDEN = (
    'secrets "kafka-user" is forbidden: User "system:serviceaccount:tocsin-system:tocsin-operator" '
    'cannot get resource "secrets" in API group "" in the namespace "shop"'
)


def build_pipeline(
    name: str = "orders", *, namespace: str = "shop", kafka: Mapping[str, object] | None = None
) -> Pipeline:
    metadata = {"name": name, "namespace": namespace, "uid": name}
    return parse_stored({**prefix("metadata", metadata), **prefix("spec.kafka", kafka or {})})


SASL: Mapping[str, object] = {"securityProtocol": "SASL_PLAINTEXT", "credentialsSecretRef": {"name": "kafka-user"}}


class Client(KafkaAdmin):
    """A client that librdkafka starts no threads for; nothing here asks it anything."""

    def __init__(self, connection: KafkaConnection, *, client_id: str) -> None:
        self.connection = connection
        self.client_id = client_id
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True


Secret = Mapping[str, str | bytes] | KubernetesFailure


class Secrets:
    """The Secrets of a cluster."""

    def __init__(self, **secrets: Secret) -> None:
        self.secrets = secrets
        self.reads = 0

    async def read(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        assert (kind, bool(namespace)) == ("Secret", True)
        self.reads += 1
        found = self.secrets.get(name.replace("-", "_"), ObjectMissing("not found"))
        if isinstance(found, KubernetesFailure):
            raise found
        return {"data": {key: encode(value) for key, value in found.items()}}


def encode(value: str | bytes) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def build_clusters(**secrets: Secret) -> tuple[KafkaClusters, Secrets, Time]:
    api, now = Secrets(**secrets), Time()
    return KafkaClusters(api, open_admin=Client, now=now), api, now


async def client_for(clusters: KafkaClusters, pipeline: Pipeline) -> Client:
    client = await clusters.admin_for(pipeline)
    assert isinstance(client, Client)
    return client


USER = {"username": "ada", "password": "pw-of-ada"}
KEYSTORE = bytes.fromhex("3082 0afe ffed")  # no text in UTF-8


@pytest.mark.parametrize(
    ("broker", "expected"),
    [
        ("kafka:9092", "kafka.shop.svc:9092"),
        ("kafka.other:9092", "kafka.other:9092"),
        ("broker.example.org:9092", "broker.example.org:9092"),
        ("10.0.0.7:9092", "10.0.0.7:9092"),
        ("[fd00::1]:9092", "[fd00::1]:9092"),
        ("localhost:9092", "localhost:9092"),
    ],
)
def test_a_bare_host_means_the_service_of_the_pipeline_s_namespace(broker: str, expected: str) -> None:
    assert qualify_brokers([broker], "shop") == [expected]


async def test_pipelines_with_one_connection_share_a_client() -> None:
    clusters, _, _ = build_clusters()
    first = await clusters.admin_for(build_pipeline("a"))
    assert await clusters.admin_for(build_pipeline("b")) is first


async def test_the_same_name_in_another_namespace_is_another_cluster() -> None:
    clusters, _, _ = build_clusters()
    first = await clusters.admin_for(build_pipeline(namespace="a"))
    assert await clusters.admin_for(build_pipeline(namespace="b")) is not first


async def test_another_user_is_another_connection() -> None:
    clusters, _, _ = build_clusters(kafka_user=USER, other={"username": "bob", "password": "x"})
    first = await clusters.admin_for(build_pipeline(kafka=SASL))
    other = {**SASL, "credentialsSecretRef": {"name": "other"}}
    assert await clusters.admin_for(build_pipeline(kafka=other)) is not first


async def test_credentials_and_certificates_come_from_the_secrets() -> None:
    tls = {"ca.crt": "CA", "tls.crt": "CERT", "tls.key": "KEY"}
    clusters, _, _ = build_clusters(kafka_user=USER, kafka_tls=tls)
    kafka = {**SASL, "securityProtocol": "SASL_SSL", "tlsSecretRef": {"name": "kafka-tls"}}
    connection = (await client_for(clusters, build_pipeline(kafka=kafka))).connection
    assert (connection.username, connection.password) == ("ada", SecretStr("pw-of-ada"))
    assert (connection.tls.ca_pem, connection.tls.cert_pem) == ("CA", "CERT")
    assert connection.tls.key_pem == SecretStr("KEY")


async def test_a_keystore_beside_the_certificates_is_no_trouble() -> None:
    keystores = {"ca.p12": KEYSTORE, "truststore.jks": KEYSTORE}
    clusters, _, _ = build_clusters(kafka_user={**USER, **keystores}, kafka_tls={"ca.crt": "CA", **keystores})
    kafka = {**SASL, "securityProtocol": "SASL_SSL", "tlsSecretRef": {"name": "kafka-tls"}}
    connection = (await client_for(clusters, build_pipeline(kafka=kafka))).connection
    assert (connection.username, connection.tls.ca_pem) == ("ada", "CA")


async def test_one_secret_may_hold_credentials_and_certificates() -> None:
    clusters, api, _ = build_clusters(kafka_user={**USER, "ca.crt": "CA"})
    kafka = {**SASL, "securityProtocol": "SASL_SSL", "tlsSecretRef": {"name": "kafka-user"}}
    connection = (await client_for(clusters, build_pipeline(kafka=kafka))).connection
    assert (connection.username, connection.tls.ca_pem, api.reads) == ("ada", "CA", 1)


async def test_a_certificate_that_is_no_text_is_named_and_read_again_once_it_is_mended() -> None:
    clusters, api, _ = build_clusters(kafka_tls={"ca.crt": KEYSTORE})
    pipeline = build_pipeline(kafka={"securityProtocol": "SSL", "tlsSecretRef": {"name": "kafka-tls"}})
    with pytest.raises(SecretIncomplete, match="shop/kafka-tls holds no text"):
        await clusters.admin_for(pipeline)
    api.secrets["kafka_tls"] = {"ca.crt": "CA"}
    assert (await client_for(clusters, pipeline)).connection.tls.ca_pem == "CA"


async def test_a_secret_is_not_read_at_every_question_but_again_after_a_while() -> None:
    clusters, api, now = build_clusters(kafka_user=USER)
    for now.now in (0, 30, 60, 61):
        await clusters.admin_for(build_pipeline(kafka=SASL))
    assert api.reads == 2


async def test_a_changed_secret_opens_another_client() -> None:
    clusters, api, now = build_clusters(kafka_user=USER)
    first = await clusters.admin_for(build_pipeline(kafka=SASL))
    api.secrets["kafka_user"] = {**USER, "password": "changed"}
    now.now = 61
    assert await clusters.admin_for(build_pipeline(kafka=SASL)) is not first


async def test_a_secret_that_was_not_accepted_is_read_again_at_once() -> None:
    clusters, api, _ = build_clusters(kafka_user=USER)
    pipeline = build_pipeline(kafka=SASL)
    await clusters.admin_for(pipeline)
    clusters.forget_secrets(pipeline)
    await clusters.admin_for(pipeline)
    assert api.reads == 2


async def test_a_client_that_nobody_asks_for_is_closed() -> None:
    clusters, _, now = build_clusters()
    idle = await client_for(clusters, build_pipeline(namespace="a"))
    now.now = 500
    used = await client_for(clusters, build_pipeline(namespace="b"))
    now.now = 700
    await clusters.evict_unused()
    assert (idle.is_closed, used.is_closed) == (True, False)


async def test_closing_closes_every_client() -> None:
    clusters, _, _ = build_clusters()
    clients = [await client_for(clusters, build_pipeline(namespace=namespace)) for namespace in "ab"]
    await clusters.close()
    assert all(client.is_closed for client in clients)


async def test_a_missing_secret_is_named_with_the_command_that_makes_it() -> None:
    clusters, _, _ = build_clusters()
    with pytest.raises(SecretMissing, match="shop/kafka-user does not exist") as caught:
        await clusters.admin_for(build_pipeline(kafka=SASL))
    assert caught.value.advice.startswith("create it: kubectl -n shop create secret generic kafka-user")
    assert caught.value.reason == "SecretMissing"


async def test_a_forbidden_secret_is_named_with_the_command_that_allows_it() -> None:
    clusters, _, _ = build_clusters(kafka_user=AccessForbidden(FORBIDDEN))
    with pytest.raises(SecretForbidden) as caught:
        await clusters.admin_for(build_pipeline(kafka=SASL))
    assert caught.value.advice == (
        "allow it: kubectl -n shop create rolebinding tocsin-secret-reader "
        "--clusterrole=tocsin-secret-reader --serviceaccount=tocsin-system:tocsin-operator"
    )


async def test_a_secret_without_its_keys_is_named_with_the_keys() -> None:
    clusters, _, _ = build_clusters(kafka_user={"user": "ada"})
    with pytest.raises(SecretIncomplete, match="has no username and no password"):
        await clusters.admin_for(build_pipeline(kafka=SASL))


async def test_an_impossible_connection_is_refused_without_repeating_secrets() -> None:
    clusters, _, _ = build_clusters(kafka_user=USER)
    with pytest.raises(ConnectionInvalid) as caught:
        await clusters.admin_for(build_pipeline(kafka={**SASL, "bootstrapServers": ["no-port"]}))
    assert "brokers" in str(caught.value)
    assert "pw-of-ada" not in str(caught.value)


def test_pipelines_share_a_batch_when_they_share_a_connection() -> None:
    assert name_cluster(build_pipeline("a")) == name_cluster(build_pipeline("b"))
    assert name_cluster(build_pipeline(namespace="a")) != name_cluster(build_pipeline(namespace="b"))


def test_pipelines_with_secrets_of_two_namespaces_do_not_share_a_batch() -> None:
    kafka = {**SASL, "bootstrapServers": ["broker.example.org:9092"]}
    names = {name_cluster(build_pipeline(namespace=namespace, kafka=kafka)) for namespace in "ab"}
    assert len(names) == 2
