"""Pipelines that name one topic, and so share its retry topics and its dead letters.

Nobody forbids it: an admission webhook that looks at other objects was refused, because it would be one more thing
that must run before anything can be applied. So both pipelines say it, the other one when it is next looked at. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from tocsin_operator.kafka_clusters import qualify_brokers
from tocsin_operator.model import Pipeline
from tocsin_operator.problems import Problem


def find_shared_topic(pipeline: Pipeline, pipelines: Iterable[Pipeline]) -> Problem | None:
    """Return what it means that others have the pipeline's topic, too, None where none has that runs.

    One Kafka is told by a broker that both name: who reaches it by other names, or with other credentials, does so
    unnoticed.
    """
    others = sorted((each for each in pipelines if _is_sharer(pipeline, each)), key=lambda each: each.key)
    if not others or pipeline.spec.suspend:
        return None
    rivals = [each.key for each in others if each.consumer_group == pipeline.consumer_group]
    listed = ", ".join(each.key for each in others)
    harm = "each sends what the other retries once more, and both have the same dead letters"
    if rivals:
        split = f"a notification is delivered by one of them alone, by chance: {', '.join(rivals)} is in the same"
        harm = f"{harm}; {split} consumerGroup {pipeline.consumer_group}"
    fix = "delete one of them, or suspend it, and create it anew with a topic of its own"
    return Problem("TopicShared", f"topic {pipeline.spec.kafka.topic.name} is that of {listed}, too: {harm}; {fix}")


def _is_sharer(pipeline: Pipeline, other: Pipeline) -> bool:
    """Return whether another pipeline that runs has the topic. The name first: a fleet has many, and few are equal."""
    kafka, theirs = pipeline.spec.kafka, other.spec.kafka
    if kafka.topic.name != theirs.topic.name or other.key == pipeline.key or other.spec.suspend:
        return False
    brokers = qualify_brokers(kafka.bootstrap_servers, pipeline.namespace)
    return not set(brokers).isdisjoint(qualify_brokers(theirs.bootstrap_servers, other.namespace))
