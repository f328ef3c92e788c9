"""What of a topic's settings should be changed once the topic exists, and the command that changes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pipelines import parse_stored, prefix
from tocsin_core.admin import TopicFacts
from tocsin_core.errors import SettingsError
from tocsin_operator.model import Pipeline
from tocsin_operator.topic_config import build_configs, find_config_problems

DAY_MILLISECONDS = 86_400_000
RETRIES = ("orders.retry.10s", "orders.retry.1m", "orders.retry.10m")
EXTERNAL: dict[str, Any] = {"management": "External"}
COMMAND = "kafka-configs.sh --bootstrap-server kafka.shop.svc:9092 --alter --entity-type topics --entity-name"


def pipeline_of(*, ttl_seconds: int = 86_400, dead_letter_topic: str | None = None, **topic: Any) -> Pipeline:
    delivery = {"ttlSeconds": ttl_seconds, "deadLetterTopic": dead_letter_topic}
    return parse_stored({**prefix("spec.delivery", delivery), **prefix("spec.kafka.topic", topic)})


def facts(name: str = "orders", **config: str) -> TopicFacts:
    return TopicFacts(name, 12, 3, 2, {key.replace("_", "."): value for key, value in config.items()})


def made_for(pipeline: Pipeline, **changes: Mapping[str, str]) -> list[TopicFacts]:
    """Return the pipeline's topics as the operator makes them, but for what is changed by topic."""
    configs = build_configs(pipeline)
    made = {"orders": configs.topic, **dict.fromkeys(RETRIES, configs.retries)}
    made[pipeline.dead_letter_topic] = configs.dead_letters
    return [TopicFacts(name, 12, 3, 2, {**config, **changes.get(name, {})}) for name, config in made.items()]


@pytest.mark.parametrize("config", [{}, {"retention.ms": "3600000", "max.message.bytes": "2000000"}])
def test_topics_as_the_operator_makes_them_are_fine(config: dict[str, str]) -> None:
    pipeline = pipeline_of(config=config)
    assert find_config_problems(pipeline, made_for(pipeline)) == ()


@pytest.mark.parametrize("topic", [{}, EXTERNAL])
def test_a_topic_that_forgets_what_still_lives_is_named_with_the_command_that_keeps_it(topic: dict[str, Any]) -> None:
    (problem,) = find_config_problems(pipeline_of(**topic), [facts(retention_ms="3600000")])
    assert (problem.reason, problem.is_blocking) == ("RetentionTooShort", False)
    assert "retention.ms of orders (3600000) is too short for delivery.ttlSeconds 86400" in problem.message
    kept = DAY_MILLISECONDS if topic else 7 * DAY_MILLISECONDS
    assert problem.message.endswith(f"{COMMAND} orders --add-config retention.ms={kept}")


def test_a_longer_life_makes_retention_too_short_in_the_topic_and_in_those_of_retries() -> None:
    made = made_for(pipeline_of())
    (problem,) = find_config_problems(pipeline_of(ttl_seconds=30 * 86_400), made)
    assert problem.reason == "RetentionTooShort"
    for name in ("orders", *RETRIES):
        assert f"{COMMAND} {name} --add-config" in problem.message
    assert f"{COMMAND} {RETRIES[0]} --add-config retention.ms={(30 * 86_400 + 600) * 1000}" in problem.message
    assert "orders.dlq" not in problem.message


@pytest.mark.parametrize("kept", ["-1", str(DAY_MILLISECONDS), "99999999999"])
def test_a_topic_that_keeps_records_for_long_enough_is_fine(kept: str) -> None:
    assert find_config_problems(pipeline_of(**EXTERNAL), [facts(retention_ms=kept)]) == ()


def test_settings_that_may_not_be_read_are_not_judged() -> None:
    pipeline = pipeline_of(config={"compression.type": "lz4"})
    assert find_config_problems(pipeline, [facts(), facts(RETRIES[0])]) == ()


def test_a_setting_of_the_spec_that_the_topic_does_not_have_is_named_with_the_command() -> None:
    config = {"compression.type": "lz4", "cleanup.policy": "delete,compact", "segment.bytes": "1"}
    topic = facts(compression_type="producer", cleanup_policy="delete", segment_bytes="1", retention_ms="-1")
    (problem,) = find_config_problems(pipeline_of(config=config), [topic])
    assert (problem.reason, problem.is_blocking) == ("TopicConfigDiffers", False)
    assert "orders has cleanup.policy=delete, orders has compression.type=producer;" in problem.message
    assert f"{COMMAND} orders --add-config 'cleanup.policy=[delete,compact],compression.type=lz4'" in problem.message


def test_larger_records_are_let_into_all_topics_of_the_pipeline() -> None:
    made = made_for(pipeline_of())
    (problem,) = find_config_problems(pipeline_of(config={"max.message.bytes": "2000000"}), [facts(), *made[1:]])
    assert f"{COMMAND} orders.retry.1m --add-config max.message.bytes=2065536;" in problem.message
    assert f"{COMMAND} orders.dlq --add-config max.message.bytes=2065536" in problem.message


def test_a_dead_letter_topic_with_a_name_of_its_own_may_have_other_settings() -> None:
    pipeline = pipeline_of(dead_letter_topic="letters", config={"compression.type": "lz4"})
    assert find_config_problems(pipeline, made_for(pipeline, letters={"compression.type": "zstd"})) == ()


def test_a_retention_that_is_too_short_is_told_once_and_before_what_merely_differs() -> None:
    config = {"retention.ms": str(9 * DAY_MILLISECONDS), "compression.type": "lz4"}
    topic = facts(retention_ms="3600000", compression_type="producer")
    short, other = find_config_problems(pipeline_of(config=config), [topic])
    assert (short.reason, other.reason) == ("RetentionTooShort", "TopicConfigDiffers")
    assert short.message.endswith(f"retention.ms={9 * DAY_MILLISECONDS}")
    assert "retention.ms" not in other.message


@pytest.mark.parametrize(
    ("key", "wished", "told"),
    [
        ("preallocate", "TRUE", "true"),
        ("min.cleanable.dirty.ratio", ".50", "0.5"),
        ("segment.ms", " 1000 ", "1000"),
        ("cleanup.policy", "compact, delete", "compact,delete"),
    ],
)
def test_one_setting_written_in_two_ways_is_one_setting(key: str, wished: str, told: str) -> None:
    topic = facts(**{key.replace(".", "_"): told})
    assert find_config_problems(pipeline_of(config={key: wished}), [topic]) == ()


@pytest.mark.parametrize(
    ("key", "value", "fix"),
    [
        ("retention.ms", "7d", "write milliseconds such as 604800000"),
        ("retention.ms", "-5", "or -1 for ever"),
        ("max.message.bytes", "2MB", "write a number of bytes such as 1048588"),
    ],
)
def test_what_is_reckoned_with_must_be_a_number(key: str, value: str, fix: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_configs(pipeline_of(config={key: value}))
    assert f"kafka.topic.config has {key} '{value}'" in str(caught.value)
    assert fix in str(caught.value)
