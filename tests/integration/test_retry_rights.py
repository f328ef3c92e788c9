"""A broker that demands rights: retry topics that the user may not see, or may see and write and not read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from receiver import Answer, Receiver
from tocsin_cli.embedded.kafka import BrokerSecurity, EmbeddedKafka
from world import World, notifications, webhook

pytestmark = pytest.mark.kafka

PASSWORD = "correct horse=battery staple"
UNUSABLE = "retry topics cannot be used: retries wait in their lanes, and hold up what is behind them"


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedKafka]:
    security = BrokerSecurity(scram_sha_512_users={"ada": PASSWORD}, is_authorizing=True)
    with EmbeddedKafka(security=security) as server:
        yield server


@pytest.fixture
async def world(guarded: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[World]:
    world = await World(guarded.internal_bootstrap_servers, tmp_path).create()
    await world.create_retry_topics(1, 2)
    grant(guarded, ResourceType.TOPIC, world.topic, AclOperation.ALL)
    grant(guarded, ResourceType.TOPIC, world.dead_letter_topic, AclOperation.ALL)
    grant(guarded, ResourceType.GROUP, f"{world.topic}-group", AclOperation.ALL)
    yield world
    await world.close()


def grant(server: EmbeddedKafka, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    client = AdminClient({"bootstrap.servers": server.internal_bootstrap_servers})
    bindings = [
        AclBinding(kind, name, ResourcePatternType.LITERAL, "User:ada", "*", operation, AclPermissionType.ALLOW)
        for operation in operations
    ]
    for future in client.create_acls(bindings).values():
        future.result(10)


async def deliver_after_three_failures(server: EmbeddedKafka, world: World) -> list[dict[str, Any]]:
    """Run a consumer as ada until it has delivered a notification at the fourth attempt; return its lines."""
    with Receiver() as receiver:
        statuses = iter([503, 503, 503])
        receiver.answer = lambda _: Answer(next(statuses, 200))
        kafka = {
            "brokers": server.bootstrap_servers,
            "security_protocol": "SASL_PLAINTEXT",
            "username": "ada",
            "password": PASSWORD,
        }
        consumer = await world.start_process([webhook(receiver.url)], kafka=kafka)
        await consumer.wait_for(UNUSABLE)
        world.produce(notifications(1))
        await receiver.wait_for(1)
        assert await consumer.terminate() == 0
    return consumer.lines


async def test_without_rights_on_them_a_consumer_works_as_if_there_were_none(
    guarded: EmbeddedKafka, world: World
) -> None:
    lines = await deliver_after_three_failures(guarded, world)
    [line] = [line for line in lines if line["event"] == UNUSABLE]
    assert line["topics"] == sorted(tier.topic for tier in world.tiers)
    assert "grant this user Describe, Read and Write" in line["advice"]
    assert [line["event"] for line in lines].count("notification deferred") == 0
    assert world.committed() == 1


async def test_what_could_not_be_read_again_is_not_written(guarded: EmbeddedKafka, world: World) -> None:
    for tier in world.tiers:
        grant(guarded, ResourceType.TOPIC, tier.topic, AclOperation.DESCRIBE, AclOperation.WRITE)
    lines = await deliver_after_three_failures(guarded, world)
    assert [line["event"] for line in lines].count("notification deferred") == 0
    assert world.committed() == 1
