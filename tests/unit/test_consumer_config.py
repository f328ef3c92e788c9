"""What a group member asks of librdkafka."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Consumer

from tocsin_core.consumer_config import GroupProtocol, build_consumer_config
from tocsin_core.settings import KafkaSettings


def build(group_protocol: GroupProtocol = "consumer", /, *, drain_seconds: float = 30, **fields: Any) -> dict[str, Any]:
    settings = KafkaSettings(**{"brokers": ["127.0.0.1:1"], "topic": "t", "consumer_group": "g"} | fields)
    return build_consumer_config(settings, client_id="c", group_protocol=group_protocol, drain_seconds=drain_seconds)


@pytest.mark.parametrize("group_protocol", ["consumer", "classic"])
def test_librdkafka_accepts_it(group_protocol: GroupProtocol) -> None:
    Consumer(build(group_protocol)).close()


@pytest.mark.parametrize("limits", [{"fetch_max_bytes": 1024}, {"message_max_bytes": 1_000_000_000}])
def test_librdkafka_accepts_extreme_limits(limits: dict[str, int]) -> None:
    Consumer(build(**limits)).close()


def test_offsets_are_committed_by_us_alone_and_reading_starts_at_the_beginning() -> None:
    config = build()
    assert config["enable.auto.commit"] is False
    assert config["auto.offset.reset"] == "earliest"


def test_a_classic_member_has_a_session_timeout_of_its_own() -> None:
    config = build("classic", session_timeout_seconds=6)
    assert config["session.timeout.ms"] == 6_000
    assert config["heartbeat.interval.ms"] == 1_500


def test_a_members_share_is_counted_topic_by_topic() -> None:
    assert build()["group.remote.assignor"] == "range"
    assert "group.remote.assignor" not in build("classic")
    assert build("classic")["partition.assignment.strategy"] == "range"


def test_a_long_drain_fits_into_the_poll_interval() -> None:
    assert build(drain_seconds=1_000)["max.poll.interval.ms"] == 1_060_000


def test_sizes_come_from_the_settings() -> None:
    config = build(fetch_max_bytes=2_000_000, message_max_bytes=1_500_000)
    assert config["fetch.max.bytes"] == 2_000_000
    assert config["message.max.bytes"] == 1_500_000


@pytest.mark.parametrize("group_protocol", ["consumer", "classic"])
def test_a_partition_that_was_not_fetched_for_a_while_does_not_rest_for_the_library_s_second(
    group_protocol: GroupProtocol,
) -> None:
    assert build(group_protocol)["fetch.queue.backoff.ms"] < 100
