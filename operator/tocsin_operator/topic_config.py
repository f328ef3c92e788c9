"""The settings of a pipeline's topics: what they are made with, and what of a topic that exists should be changed.

Settings count when a topic is made. Altering them later was refused: people change them with Kafka's own tools, for
a night or for good, and the operator would undo it every few minutes. So a difference is said, with the command that
ends it. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tocsin_core.admin import TopicFacts
from tocsin_core.errors import SettingsError
from tocsin_core.retry import RETRY_DELAYS_SECONDS
from tocsin_operator.kafka_clusters import qualify_brokers
from tocsin_operator.model import Pipeline
from tocsin_operator.problems import Problem

RETENTION = "retention.ms"
MAX_BYTES = "max.message.bytes"
WEEK_MILLISECONDS = 7 * 86_400_000
DEAD_LETTER_MILLISECONDS = 14 * 86_400_000  # time for people to find out, and to mend what broke
DEFAULT_MAX_BYTES = 1_048_588
HEADERS_MAX_BYTES = 65_536  # a dead letter or a retry record is the original and the headers that say why
REPLICAS_FOR_TWO_ACKS = 3
# What is reckoned with, as the CRD's rules have it, and what to write instead of something else.
NUMBERS = {
    RETENTION: (re.compile(r"-1|[0-9]{1,18}"), "milliseconds such as 604800000, or -1 for ever"),
    MAX_BYTES: (re.compile(r"[0-9]{1,10}"), "a number of bytes such as 1048588"),
}


class Configs(NamedTuple):
    """The settings of a pipeline's topic, of its retry topics and of its dead-letter topic."""

    topic: dict[str, str]
    retries: dict[str, str]
    dead_letters: dict[str, str]


class _Change(NamedTuple):
    topic: str
    key: str
    found: str
    wanted: str


def build_configs(pipeline: Pipeline) -> Configs:
    """Return what a pipeline's topics are made with.

    Raise SettingsError for a value of kafka.topic.config that should be a number and is none.
    """
    topic = pipeline.spec.kafka.topic
    two_acks = {"min.insync.replicas": "2"} if (topic.replication_factor or 0) >= REPLICAS_FOR_TWO_ACKS else {}
    wished = _parse(topic.config, RETENTION, WEEK_MILLISECONDS)
    own = {**two_acks, **topic.config, RETENTION: _longer(wished, _live_milliseconds(pipeline))}
    longer = {**own, MAX_BYTES: str(_parse(topic.config, MAX_BYTES, DEFAULT_MAX_BYTES) + HEADERS_MAX_BYTES)}
    kept = int(own[RETENTION])
    return Configs(
        topic=own,
        retries={**longer, RETENTION: _longer(kept, _wait_milliseconds(pipeline))},
        dead_letters={**longer, RETENTION: _longer(kept, DEAD_LETTER_MILLISECONDS)},
    )


def find_config_problems(pipeline: Pipeline, found: Iterable[TopicFacts]) -> tuple[Problem, ...]:
    """Return what of the settings of these topics should be changed; nothing of those that may not be read.

    Raise SettingsError as `build_configs` does.
    """
    topics, wanted = list(found), _name_configs(pipeline)
    short = _find_short(pipeline, topics, wanted)
    told = {(change.topic, change.key) for change in short}
    other = [change for change in _find_other(pipeline, topics, wanted) if (change.topic, change.key) not in told]
    problems = [_explain_short(pipeline, short) if short else None, _explain_other(pipeline, other) if other else None]
    return tuple(problem for problem in problems if problem is not None)


def _name_configs(pipeline: Pipeline) -> dict[str, dict[str, str]]:
    """Return the settings by topic, of Managed topics alone: an External one's are its owner's."""
    topic = pipeline.spec.kafka.topic
    if topic.management == "External":
        return {}
    configs = build_configs(pipeline)
    named = {topic.name: configs.topic, **dict.fromkeys(pipeline.retry_topics, configs.retries)}
    # A dead-letter topic with a name of its own may be other pipelines' as well, which wish for something else.
    is_shared = pipeline.spec.delivery.dead_letter_topic is not None
    return named if is_shared else {**named, pipeline.dead_letter_topic: configs.dead_letters}


def _find_short(
    pipeline: Pipeline, found: Iterable[TopicFacts], wanted: Mapping[str, Mapping[str, str]]
) -> list[_Change]:
    """Return the topics that forget a notification while it lives, whoever made them."""
    needed = {
        pipeline.spec.kafka.topic.name: _live_milliseconds(pipeline),
        **dict.fromkeys(pipeline.retry_topics, _wait_milliseconds(pipeline)),
    }
    short = [
        (facts, needed[facts.name])
        for facts in found
        if facts.name in needed and 0 <= int(facts.config.get(RETENTION, -1)) < needed[facts.name]
    ]
    return [
        _Change(facts.name, RETENTION, facts.config[RETENTION], wanted.get(facts.name, {}).get(RETENTION, str(least)))
        for facts, least in short
    ]


def _find_other(
    pipeline: Pipeline, found: Iterable[TopicFacts], wanted: Mapping[str, Mapping[str, str]]
) -> list[_Change]:
    """Return where topics differ from kafka.topic.config; a key that the broker does not tell cannot be compared."""
    changes = [
        _Change(facts.name, key, facts.config[key], wanted[facts.name][key])
        for facts in found
        if facts.name in wanted
        for key in sorted(pipeline.spec.kafka.topic.config)
        if key in facts.config
    ]
    return [change for change in changes if _simplify(change.found) != _simplify(change.wanted)]


def _explain_short(pipeline: Pipeline, changes: list[_Change]) -> Problem:
    listed = ", ".join(f"{change.topic} ({change.found})" for change in changes)
    message = (
        f"retention.ms of {listed} is too short for delivery.ttlSeconds {pipeline.spec.delivery.ttl_seconds}: what "
        "waits longer is deleted, with no delivery and no dead letter"
    )
    return Problem("RetentionTooShort", f"{message}; change it: {_render_commands(pipeline, changes)}")


def _explain_other(pipeline: Pipeline, changes: list[_Change]) -> Problem:
    listed = ", ".join(f"{change.topic} has {change.key}={change.found or '(nothing)'}" for change in changes)
    message = f"topics differ from kafka.topic.config, which counts when they are created: {listed}"
    fix = f"change them, or what kafka.topic.config says: {_render_commands(pipeline, changes)}"
    return Problem("TopicConfigDiffers", f"{message}; {fix}")


def _render_commands(pipeline: Pipeline, changes: list[_Change]) -> str:
    """Return one command for each topic, to be run from any namespace."""
    kafka = pipeline.spec.kafka
    server = qualify_brokers(kafka.bootstrap_servers, pipeline.namespace)[0]
    commands = []
    for topic in dict.fromkeys(change.topic for change in changes):
        settings = ",".join(f"{each.key}={_bracket(each.wanted)}" for each in changes if each.topic == topic)
        commands.append(
            f"kafka-configs.sh --bootstrap-server {server} --alter --entity-type topics --entity-name {topic} "
            f"--add-config {shlex.quote(settings)}"
        )
    return "; ".join(commands)


def _bracket(value: str) -> str:
    """Return a value as kafka-configs.sh reads it: commas part settings, except in brackets."""
    return f"[{value}]" if "," in value else value


def _simplify(value: str) -> tuple[str | float, ...]:
    """Return a value in a form that does not depend on who wrote it: brokers tell `true` for TRUE and 0.5 for .50."""
    return tuple(_read_number(part.strip().lower()) for part in value.split(","))


def _read_number(part: str) -> str | float:
    try:
        return float(part)
    except ValueError:
        return part


def _live_milliseconds(pipeline: Pipeline) -> int:
    """Return how long a notification may live."""
    return pipeline.spec.delivery.ttl_seconds * 1000


def _wait_milliseconds(pipeline: Pipeline) -> int:
    """Return how long a record may be of use in a retry topic: a notification's life, and one more wait to end it."""
    return _live_milliseconds(pipeline) + max(RETRY_DELAYS_SECONDS) * 1000


def _longer(milliseconds: int, least: int) -> str:
    """Return a retention that is at least `least`; -1 is for ever."""
    return str(milliseconds if milliseconds < 0 else max(milliseconds, least))


def _parse(config: Mapping[str, str], key: str, default: int) -> int:
    value = config.get(key, str(default)).strip()
    pattern, example = NUMBERS[key]
    if not pattern.fullmatch(value):
        raise SettingsError(f"kafka.topic.config has {key} {value!r}: write {example}")
    return int(value)
