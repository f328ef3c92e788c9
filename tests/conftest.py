"""What tests of every part share: one real Kafka and one real Valkey per session, and a topic per test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from chaos.ground import SHORT_SESSIONS
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_core.admin import KafkaAdmin
from tocsin_core.settings import KafkaConnection

PARTITIONS = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fuzz-seconds 600` makes each fuzz of raw bytes last so long; without it they are short and always the same."""
    parser.addoption("--fuzz-seconds", type=float, default=0.0, help="how long each fuzz of raw bytes lasts")


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    """A broker without any security, started once per session; nobody may stop it."""
    with EmbeddedKafka(properties=SHORT_SESSIONS) as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    """A store, started once per session; use keys of your own."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def kafka_connection(kafka: EmbeddedKafka) -> KafkaConnection:
    """How to reach `kafka`."""
    return KafkaConnection(brokers=[kafka.bootstrap_servers])


@pytest.fixture
async def admin(kafka_connection: KafkaConnection) -> AsyncIterator[KafkaAdmin]:
    """An admin client for `kafka`."""
    client = KafkaAdmin(kafka_connection, client_id="tests")
    yield client
    await client.close()


@pytest.fixture
async def topic(admin: KafkaAdmin) -> str:
    """A fresh topic with four partitions."""
    name = f"test-{secrets.token_hex(6)}"
    await admin.create_topic(name, partitions=PARTITIONS)
    return name
