from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import KafkaFailure, KafkaUnavailable, SettingsError, TopicMissing
from tocsin_core.lag import PartitionOffsets
from tocsin_core.producer import RecordProducer
from tocsin_core.settings import KafkaConnection, KafkaSettings

pytestmark = pytest.mark.kafka


async def fill(kafka: EmbeddedKafka, topic: str, count: int) -> dict[int, int]:
    """Store `count` records and return how many each partition got."""
    producer = RecordProducer(KafkaSettings(brokers=[kafka.bootstrap_servers], topic=topic), client_id="tests")
    await producer.start()
    stored = [await producer.send(topic, b"%d" % number, b"v", []) for number in range(count)]
    await producer.close(5)
    partitions = [each.partition for each in stored]
    return {number: partitions.count(number) for number in range(4)}


def commit(kafka: EmbeddedKafka, group: str, topic: str, offsets: dict[int, int]) -> None:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    positions = [TopicPartition(topic, number, offset) for number, offset in offsets.items()]
    consumer.commit(offsets=positions, asynchronous=False)
    consumer.close()


async def test_a_cluster_says_its_id_controller_and_brokers(admin: KafkaAdmin) -> None:
    facts = await admin.describe_cluster()
    assert len(facts.cluster_id) == 22
    assert facts.broker_ids == (1,)
    assert facts.controller_id == 1


async def test_a_client_without_answers_gives_way_to_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_core.admin.RENEW_SECONDS", 0.5)
    with EmbeddedKafka() as own:
        admin = KafkaAdmin(KafkaConnection(brokers=[own.bootstrap_servers]), client_id="tests", timeout_seconds=1.0)
        before = admin._client
        assert (await admin.describe_cluster()).broker_ids == (1,)
        os.kill(own.pid, signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(KafkaUnavailable):
                await admin.describe_cluster()
        os.kill(own.pid, signal.SIGCONT)
        async with asyncio.timeout(30):
            while not await is_answering(admin):
                pass
        assert admin._client is not before
        await admin.close()


async def is_answering(admin: KafkaAdmin) -> bool:
    try:
        return bool(await admin.describe_cluster())
    except KafkaUnavailable:
        return False


async def test_a_fresh_topic_is_described_with_its_partitions_and_configuration(admin: KafkaAdmin, topic: str) -> None:
    facts = await admin.describe_topic(topic)
    assert (facts.name, facts.partitions, facts.replication_factor, facts.min_insync_replicas) == (topic, 4, 1, 1)
    assert facts.config["cleanup.policy"] == "delete"


async def test_a_missing_topic_is_named_with_advice(admin: KafkaAdmin) -> None:
    with pytest.raises(TopicMissing) as caught:
        await admin.describe_topic("nobody-made-this")
    assert "create the topic" in caught.value.advice


async def test_a_topic_is_created_with_its_configuration(admin: KafkaAdmin) -> None:
    name = f"made-{secrets.token_hex(4)}"
    await admin.create_topic(name, partitions=3, replication_factor=1, config={"retention.ms": "86400000"})
    facts = await admin.describe_topic(name)
    assert (facts.partitions, facts.config["retention.ms"]) == (3, "86400000")


async def test_creating_a_topic_that_exists_changes_nothing(admin: KafkaAdmin, topic: str) -> None:
    await admin.create_topic(topic, partitions=9)
    assert (await admin.describe_topic(topic)).partitions == 4


async def test_an_unknown_configuration_key_is_refused_with_advice(admin: KafkaAdmin) -> None:
    with pytest.raises(KafkaFailure) as caught:
        await admin.create_topic("never", partitions=1, config={"retention.fortnights": "1"})
    assert "retention.fortnights" in str(caught.value)
    assert "config" in caught.value.advice


async def test_more_replicas_than_brokers_are_refused_with_advice(admin: KafkaAdmin) -> None:
    with pytest.raises(KafkaFailure) as caught:
        await admin.create_topic("never", partitions=1, replication_factor=3)
    assert "replicationFactor" in caught.value.advice


async def test_a_topic_grows_and_never_shrinks(admin: KafkaAdmin, topic: str) -> None:
    await admin.grow_topic(topic, 6)
    assert (await admin.describe_topic(topic)).partitions == 6
    await admin.grow_topic(topic, 2)
    assert (await admin.describe_topic(topic)).partitions == 6


async def test_growing_a_missing_topic_says_that_it_is_missing(admin: KafkaAdmin) -> None:
    with pytest.raises(TopicMissing):
        await admin.grow_topic("nobody-made-this", 6)


async def test_a_group_without_commits_lags_by_everything(admin: KafkaAdmin, kafka: EmbeddedKafka, topic: str) -> None:
    counts = await fill(kafka, topic, 40)
    observed = await admin.observe_group("nobody", topic)
    assert [each.partition for each in observed] == [0, 1, 2, 3]
    assert all(each.committed is None and each.log_start == 0 for each in observed)
    assert {each.partition: each.lag for each in observed} == counts


async def test_commits_count_where_there_are_some(admin: KafkaAdmin, kafka: EmbeddedKafka, topic: str) -> None:
    counts = await fill(kafka, topic, 40)
    group = f"group-{secrets.token_hex(4)}"
    commit(kafka, group, topic, {0: counts[0], 1: 1})
    observed = await admin.observe_group(group, topic)
    assert [each.committed for each in observed] == [counts[0], 1, None, None]
    assert [each.lag for each in observed] == [0, counts[1] - 1, counts[2], counts[3]]


async def test_many_groups_are_observed_together_and_a_missing_topic_hides_no_other(
    admin: KafkaAdmin, kafka: EmbeddedKafka, topic: str
) -> None:
    counts = await fill(kafka, topic, 8)
    commit(kafka, "first", topic, {0: 0})
    observed = await admin.observe_groups([("first", topic), ("second", topic), ("first", "nobody-made-this")])
    assert isinstance(observed["first", "nobody-made-this"], TopicMissing)
    first, second = observed["first", topic], observed["second", topic]
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert first[0] == PartitionOffsets(partition=0, log_start=0, log_end=counts[0], committed=0)
    assert second[0].committed is None


async def test_no_groups_are_observed_for_free(admin: KafkaAdmin) -> None:
    assert await admin.observe_groups([]) == {}


async def test_members_of_a_group_are_counted(admin: KafkaAdmin, kafka: EmbeddedKafka, topic: str) -> None:
    group = f"group-{secrets.token_hex(4)}"
    assert await admin.group_members(group) == 0
    for protocol in ("classic", "consumer"):
        name = f"{group}-{protocol}"
        consumer = Consumer(
            {"bootstrap.servers": kafka.bootstrap_servers, "group.id": name, "group.protocol": protocol}
        )
        consumer.subscribe([topic])
        deadline = time.monotonic() + 20
        while not consumer.assignment() and time.monotonic() < deadline:
            consumer.poll(0.2)
        assert await admin.group_members(name) == 1
        consumer.close()


async def test_an_unreachable_broker_is_said_within_the_timeout_with_its_address() -> None:
    client = KafkaAdmin(KafkaConnection(brokers=["127.0.0.1:1"]), client_id="tests", timeout_seconds=1)
    started = time.monotonic()
    with pytest.raises(KafkaUnavailable) as caught:
        await client.describe_cluster()
    assert time.monotonic() - started < 4
    assert "127.0.0.1:1" in str(caught.value)
    assert "kafka.brokers" in caught.value.advice
    await client.close()


async def test_an_unreachable_broker_is_every_pairs_failure() -> None:
    client = KafkaAdmin(KafkaConnection(brokers=["127.0.0.1:1"]), client_id="tests", timeout_seconds=1)
    observed = await client.observe_groups([("g", "a"), ("g", "b")])
    assert {type(each) for each in observed.values()} == {KafkaUnavailable}
    await client.close()


async def test_a_closed_client_refuses(kafka_connection: KafkaConnection) -> None:
    client = KafkaAdmin(kafka_connection, client_id="tests")
    await client.close()
    await client.close()
    with pytest.raises(KafkaUnavailable):
        await client.describe_cluster()


async def test_an_unreadable_ca_is_said_at_once_and_names_the_file() -> None:
    connection = KafkaConnection.model_validate(
        {"brokers": ["127.0.0.1:1"], "security_protocol": "SSL", "tls": {"ca_file": "/nowhere/ca.crt"}}
    )
    with pytest.raises(SettingsError, match=r"kafka\.tls\.ca_file: /nowhere/ca\.crt: No such file"):
        KafkaAdmin(connection, client_id="tests")
