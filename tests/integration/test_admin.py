from __future__ import annotations

import pytest

from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import TopicMissing

pytestmark = pytest.mark.kafka


async def test_a_fresh_topic_is_described_with_its_partitions_and_configuration(admin: KafkaAdmin, topic: str) -> None:
    facts = await admin.describe_topic(topic)
    assert (facts.name, facts.partitions, facts.replication_factor, facts.min_insync_replicas) == (topic, 4, 1, 1)
    assert facts.config["cleanup.policy"] == "delete"


async def test_a_missing_topic_is_named_with_advice(admin: KafkaAdmin) -> None:
    with pytest.raises(TopicMissing) as caught:
        await admin.describe_topic("nobody-made-this")
    assert "create the topic" in caught.value.advice
