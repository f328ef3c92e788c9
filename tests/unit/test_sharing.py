"""Who shares a topic with whom, and what that does."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines import parse_stored
from tocsin_operator.model import Pipeline
from tocsin_operator.sharing import find_shared_topic

BROKERS = "spec.kafka.bootstrapServers"
GROUP = "spec.kafka.consumerGroup"
ORDERS = parse_stored({})


def other_of(**changes: Any) -> Pipeline:
    named = {"metadata.name": "other", "metadata.uid": "o"}
    return parse_stored({**named, **{key.replace("__", "."): value for key, value in changes.items()}})


def test_the_other_pipeline_of_a_topic_is_named_with_what_that_does() -> None:
    problem = find_shared_topic(ORDERS, [ORDERS, other_of(), other_of(metadata__name="another")])
    assert problem is not None
    assert (problem.reason, problem.is_blocking) == ("TopicShared", False)
    assert "topic orders is that of shop/another, shop/other, too: each sends what the other retries" in problem.message
    assert "consumerGroup" not in problem.message
    assert "create it anew with a topic of its own" in problem.message


def test_one_consumer_group_for_two_pipelines_is_said_to_be_worse() -> None:
    pipeline = parse_stored({GROUP: "orders"})
    rival = other_of(**{GROUP: "orders"})
    problem = find_shared_topic(pipeline, [pipeline, rival, other_of(metadata__name="another")])
    assert problem is not None
    assert (
        "delivered by one of them alone, by chance: shop/other is in the same consumerGroup orders" in problem.message
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.kafka.topic.name": "others"},
        {BROKERS: ["elsewhere.example.org:9092"]},
        {"metadata.namespace": "warehouse"},  # kafka:9092 is another Kafka there
        {"spec.suspend": True},
    ],
    ids=["another topic", "another Kafka", "another namespace", "suspended"],
)
def test_who_has_another_topic_another_kafka_or_does_not_run_shares_nothing(changes: dict[str, Any]) -> None:
    assert find_shared_topic(ORDERS, [ORDERS, other_of(**changes)]) is None


def test_a_pipeline_that_does_not_run_shares_nothing() -> None:
    assert find_shared_topic(parse_stored({"spec.suspend": True}), [other_of()]) is None


def test_one_broker_in_common_is_one_kafka_whatever_the_namespace() -> None:
    here = parse_stored({BROKERS: ["kafka:9092", "kafka-1.shop:9092"]})
    there = other_of(**{"metadata.namespace": "warehouse", BROKERS: ["kafka.shop.svc:9092"]})
    assert find_shared_topic(here, [there]) is not None
