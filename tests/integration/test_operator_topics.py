"""Managed topics on a real Kafka: made once, grown, never shrunk."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from pipelines import parse_stored, prefix
from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import TopicMissing
from tocsin_operator.model import Pipeline
from tocsin_operator.topics import apply_topics

pytestmark = pytest.mark.kafka


@pytest.fixture
def name() -> str:
    """A topic's name that nobody used."""
    return f"managed-{secrets.token_hex(6)}"


def pipeline_of(name: str, **topic: Any) -> Pipeline:
    return parse_stored(prefix("spec.kafka.topic", {"name": name, **topic}))


async def test_a_managed_topic_and_those_derived_from_it_are_made_with_their_configuration(
    admin: KafkaAdmin, name: str
) -> None:
    report = await apply_topics(admin, pipeline_of(name, partitions=5, config={"retention.ms": "999999999"}))
    assert report.facts is not None
    assert report.facts.partitions == 5
    assert report.facts.config["retention.ms"] == "999999999"
    assert [news.reason for news in report.news] == ["TopicCreated"] * 5
    retries = await admin.describe_topic(f"{name}.retry.10s")
    assert (retries.partitions, retries.config["retention.ms"]) == (5, "999999999")
    dead_letters = await admin.describe_topic(f"{name}.dlq")
    assert dead_letters.partitions == 3
    assert dead_letters.config["retention.ms"] == "1209600000"


async def test_looking_again_changes_nothing(admin: KafkaAdmin, name: str) -> None:
    await apply_topics(admin, pipeline_of(name, partitions=2))
    assert (await apply_topics(admin, pipeline_of(name, partitions=2))).news == ()


async def test_a_broker_tells_settings_as_the_pipeline_wishes_them(admin: KafkaAdmin, name: str) -> None:
    config = {
        "cleanup.policy": "compact, delete",
        "max.message.bytes": "2000000",
        "min.cleanable.dirty.ratio": ".50",
        "preallocate": "FALSE",
        "retention.ms": "3600000",
    }
    assert (await apply_topics(admin, pipeline_of(name, partitions=1, config=config))).warnings == ()
    other = pipeline_of(name, partitions=1, config={**config, "compression.type": "lz4"})
    (warning,) = (await apply_topics(admin, other)).warnings
    assert warning.reason == "TopicConfigDiffers"
    assert "compression.type=producer" in warning.message
    assert "cleanup.policy" not in warning.message


async def test_a_topic_that_exists_and_forgets_too_soon_is_named(admin: KafkaAdmin, name: str) -> None:
    await apply_topics(admin, pipeline_of(name, partitions=1))
    month = parse_stored({**prefix("spec.kafka.topic", {"name": name}), "spec.delivery.ttlSeconds": 30 * 86_400})
    (warning,) = (await apply_topics(admin, month)).warnings
    assert warning.reason == "RetentionTooShort"
    assert f"{name} (604800000)" in warning.message
    assert (await admin.describe_topic(name)).config["retention.ms"] == "604800000"


async def test_a_managed_topic_grows_and_never_shrinks(admin: KafkaAdmin, name: str) -> None:
    await apply_topics(admin, pipeline_of(name, partitions=2))
    grown = await apply_topics(admin, pipeline_of(name, partitions=6))
    assert [news.reason for news in grown.news] == ["TopicGrown"] * 4
    assert (await admin.describe_topic(name)).partitions == 6
    assert (await admin.describe_topic(f"{name}.retry.10m")).partitions == 6
    assert (await admin.describe_topic(f"{name}.dlq")).partitions == 2
    kept = await apply_topics(admin, pipeline_of(name, partitions=3))
    assert kept.news == ()
    assert (await admin.describe_topic(name)).partitions == 6


async def test_an_external_topic_that_is_missing_is_not_made(admin: KafkaAdmin, name: str) -> None:
    with pytest.raises(TopicMissing):
        await apply_topics(admin, pipeline_of(name, management="External"))
    with pytest.raises(TopicMissing):
        await admin.describe_topic(name)


async def test_an_external_topic_without_its_dead_letter_topic_is_missing_that_one(
    admin: KafkaAdmin, topic: str
) -> None:
    with pytest.raises(TopicMissing, match=r"dlq"):
        await apply_topics(admin, pipeline_of(topic, management="External"))


async def test_an_external_topic_without_its_retry_topics_is_told_which_to_create_and_is_not_stopped(
    admin: KafkaAdmin, topic: str
) -> None:
    await admin.create_topic(f"{topic}.dlq", partitions=1)
    await admin.create_topic(f"{topic}.retry.1m", partitions=4)
    report = await apply_topics(admin, pipeline_of(topic, management="External"))
    assert report.facts is not None
    assert report.problem is not None
    assert (report.problem.reason, report.problem.is_blocking) == ("RetryTopicsMissing", False)
    assert f"{topic}.retry.10s, {topic}.retry.10m" in report.problem.message
    assert "with 4 partitions" in report.problem.message
