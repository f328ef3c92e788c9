"""What a broker demands, against a broker that demands it: SCRAM and PLAIN over TLS, client certificates, ACLs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from confluent_kafka import Consumer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tocsin_cli.embedded.kafka import BrokerSecurity, BrokerTLS, EmbeddedKafka
from tocsin_core.admin import KafkaAdmin
from tocsin_core.connection import build_client_config
from tocsin_core.errors import KafkaFailure, NotAuthenticated, NotAuthorized
from tocsin_core.outgoing import Stored
from tocsin_core.producer import RecordProducer
from tocsin_core.settings import KafkaSettings

pytestmark = pytest.mark.kafka

TOPIC = "orders"
FORBIDDEN = "not-yours"
PASSWORD = "correct horse=battery staple"
WRONG = "no-such-password"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.crt"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def secured(authority: trustme.CA) -> Iterator[EmbeddedKafka]:
    """SASL over TLS with ACLs: ada (SCRAM) and bob (PLAIN) may use `orders`; eve is known and may do nothing."""
    security = BrokerSecurity(
        scram_sha_512_users={"ada": PASSWORD, "eve": PASSWORD},
        scram_sha_256_users={"old": PASSWORD},
        plain_users={"bob": PASSWORD},
        tls=build_broker_tls(authority),
        is_authorizing=True,
    )
    with EmbeddedKafka(security=security) as server:
        grant(server)
        yield server


def build_broker_tls(authority: trustme.CA, *, client_ca: str = "") -> BrokerTLS:
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    chain = "".join(blob.bytes().decode() for blob in leaf.cert_chain_pems)
    return BrokerTLS(certificate_chain=chain, private_key=pkcs8, client_ca=client_ca)


def grant(server: EmbeddedKafka) -> None:
    client = AdminClient({"bootstrap.servers": server.internal_bootstrap_servers})
    bindings = [
        AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", AclOperation.ALL, AclPermissionType.ALLOW
        )
        for user in ("ada", "bob", "old")
        for kind, name in ((ResourceType.TOPIC, TOPIC), (ResourceType.GROUP, "orders"))
    ]
    for future in client.create_acls(bindings).values():
        future.result(10)


def settings_for(server: EmbeddedKafka, ca_file: Path | None, **changes: Any) -> KafkaSettings:
    return KafkaSettings(
        **{
            "brokers": [server.bootstrap_servers],
            "topic": TOPIC,
            "delivery_timeout_seconds": 5,
            "security_protocol": "SASL_SSL",
            "username": "ada",
            "password": PASSWORD,
            "tls": {"ca_file": ca_file},
            **changes,
        }
    )


async def make_topics(server: EmbeddedKafka) -> None:
    internal = KafkaSettings(brokers=[server.internal_bootstrap_servers], topic=TOPIC)
    admin = KafkaAdmin(internal, client_id="tests")
    await admin.create_topic(TOPIC, partitions=1)
    await admin.create_topic(FORBIDDEN, partitions=1)
    await admin.close()


async def send_one(settings: KafkaSettings, topic: str = TOPIC) -> Stored:
    producer = RecordProducer(settings, client_id="tests")
    await producer.start()
    try:
        return await producer.send(topic, b"k", b"v", [])
    finally:
        await producer.close(0.1)


@pytest.mark.parametrize(
    ("username", "mechanism"), [("ada", "SCRAM-SHA-512"), ("old", "SCRAM-SHA-256"), ("bob", "PLAIN")]
)
async def test_a_known_user_produces_consumes_and_asks_over_tls(
    secured: EmbeddedKafka, ca_file: Path, username: str, mechanism: str
) -> None:
    await make_topics(secured)
    settings = settings_for(secured, ca_file, username=username, sasl_mechanism=mechanism)
    stored = await send_one(settings)
    consumer = Consumer({**build_client_config(settings), "group.id": "orders", "auto.offset.reset": "earliest"})
    consumer.subscribe([TOPIC])
    message = await asyncio.to_thread(consumer.poll, 20)
    assert message is not None
    assert message.value() == b"v"
    await asyncio.to_thread(consumer.close)
    admin = KafkaAdmin(settings, client_id="tests")
    (offsets,) = await admin.observe_group("orders", TOPIC)
    assert offsets.log_end == stored.offset + 1
    assert (await admin.describe_topic(TOPIC)).min_insync_replicas == 1
    await admin.close()


async def test_the_ca_may_come_as_text_instead_of_a_file(secured: EmbeddedKafka, authority: trustme.CA) -> None:
    await make_topics(secured)
    settings = settings_for(secured, None, tls={"ca_pem": authority.cert_pem.bytes().decode()})
    assert (await send_one(settings)).partition == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"password": WRONG}, "password"),
        ({"username": "nobody"}, "username"),
        ({"username": "bob", "sasl_mechanism": "PLAIN", "password": WRONG}, "password"),
    ],
)
async def test_whom_the_broker_does_not_know_is_told_so_by_producer_and_admin(
    secured: EmbeddedKafka, ca_file: Path, changes: dict[str, Any], word: str
) -> None:
    settings = settings_for(secured, ca_file, **changes)
    with pytest.raises(NotAuthenticated) as produced:
        await send_one(settings)
    admin = KafkaAdmin(settings, client_id="tests", timeout_seconds=20)
    started = time.monotonic()
    with pytest.raises(NotAuthenticated) as asked:
        await admin.describe_cluster()
    assert time.monotonic() - started < 5, "said when the broker says it, not at the deadline"
    await admin.close()
    for caught in (produced, asked):
        assert word in caught.value.advice
        assert WRONG not in f"{caught.value}{caught.value.advice}"
        assert not caught.value.retriable


async def test_a_broker_whose_certificate_we_do_not_trust_is_refused_with_advice(
    secured: EmbeddedKafka, tmp_path: Path
) -> None:
    stranger = tmp_path / "ca.crt"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    with pytest.raises(NotAuthenticated) as caught:
        await send_one(settings_for(secured, stranger, delivery_timeout_seconds=2))
    assert "tls.ca_file" in caught.value.advice


async def test_producing_without_rights_is_not_authorized_with_advice(secured: EmbeddedKafka, ca_file: Path) -> None:
    await make_topics(secured)
    with pytest.raises(NotAuthorized) as caught:
        await send_one(settings_for(secured, ca_file, username="eve"))
    assert "Write" in caught.value.advice


async def test_asking_and_creating_without_rights_is_not_authorized(secured: EmbeddedKafka, ca_file: Path) -> None:
    await make_topics(secured)
    admin = KafkaAdmin(settings_for(secured, ca_file), client_id="tests")
    with pytest.raises(KafkaFailure) as described:
        await admin.describe_topic(FORBIDDEN)
    with pytest.raises(NotAuthorized) as created:
        await admin.create_topic("new", partitions=1)
    observed = await admin.observe_groups([("orders", TOPIC), ("another-group", TOPIC)])
    await admin.close()
    assert isinstance(described.value, NotAuthorized)
    assert "grant" in created.value.advice
    assert isinstance(observed["orders", TOPIC], tuple)
    assert isinstance(observed["another-group", TOPIC], NotAuthorized)


async def test_client_certificates_are_sent_where_the_broker_demands_them(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    ours = authority.issue_cert("tocsin@example.org")
    ours.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "tls.crt"))
    tls = build_broker_tls(authority, client_ca=authority.cert_pem.bytes().decode())
    with EmbeddedKafka(security=BrokerSecurity(tls=tls)) as server:
        await make_topics(server)
        plain = {"security_protocol": "SSL", "username": "", "password": ""}
        files = {"ca_file": ca_file, "cert_file": tmp_path / "tls.crt", "key_file": tmp_path / "tls.key"}
        assert (await send_one(settings_for(server, None, **plain, tls=files))).offset == 0
        with pytest.raises(KafkaFailure):
            await send_one(settings_for(server, ca_file, **plain, delivery_timeout_seconds=2))


def test_no_password_is_in_the_brokers_command_line_or_readable_by_others(secured: EmbeddedKafka) -> None:
    command = Path(f"/proc/{secured.pid}/cmdline").read_bytes()
    assert PASSWORD.encode() not in command
    config = secured.log_path.with_name("server.properties")
    assert config.stat().st_mode & 0o077 == 0
    assert not config.with_name("format.arguments").exists()
