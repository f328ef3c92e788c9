"""What a member of a consumer group asks of librdkafka. Pure, and the one place where its property names stand.

It commits by itself and holds little: what is prefetched is bounded, because what waits in a client's memory is read
again by somebody else after a crash.
"""

from __future__ import annotations

from typing import Any, Literal

from tocsin_core.connection import build_client_config
from tocsin_core.settings import KafkaSettings

GroupProtocol = Literal["consumer", "classic"]

BATCH_RECORDS = 500
MIN_POLL_INTERVAL_MS = 300_000
MAX_POLL_INTERVAL_MS = 86_400_000
HAND_OVER_MARGIN_SECONDS = 60.0
"""What a hand-over may take beyond its drain before the group gives up on this member."""
SETTLE_SECONDS = 20.0
"""How long of that it waits for a coordinator that does not answer."""
CLOSE_SECONDS = 5.0
"""How long leaving the group may take: with a coordinator it is a tenth of a second, and without one no time helps."""
METADATA_REFRESH_MS = 30_000
"""How soon new partitions of a grown topic are noticed."""
STATISTICS_INTERVAL_MS = 2_000
SOCKET_TIMEOUT_MS = 15_000
"""How long a broker may be silent before a request is given up."""
FETCH_AGAIN_MS = 20
"""How long a partition whose prefetched records were enough is not fetched. In librdkafka's second a fast consumer eats
them up and then stands still: a tenth of its throughput."""
REPEAT_WITHIN_SECONDS = 1.0
"""How soon the client repeats a request whose connection broke."""
ASSIGNOR = "range"
"""Shares out each topic for itself, so that every member gets its part of the topic that all work comes from.

The brokers' default, uniform, and librdkafka's cooperative-sticky even out the sum over all topics, and a member reads
the retry topics too: the second of two would get these and nothing else. The price is paid by classic members: for
them a range means that a rebalance stops all partitions for its duration, not only those that move.
"""


def build_consumer_config(
    settings: KafkaSettings, *, client_id: str, group_protocol: GroupProtocol, drain_seconds: float
) -> dict[str, Any]:
    """Return librdkafka's properties for a member that commits by itself and holds little. Pure.

    Under KIP-848 the session timeout belongs to the broker (`group.consumer.session.timeout.ms`), not to the client.
    """
    poll_interval_ms = int((drain_seconds + HAND_OVER_MARGIN_SECONDS) * 1_000)
    config: dict[str, Any] = {
        **build_client_config(settings),
        "client.id": client_id,
        "group.id": settings.consumer_group,
        "group.protocol": group_protocol,
        "auto.offset.reset": "earliest",  # else a partition added to the topic would lose its first records
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "max.poll.interval.ms": min(max(MIN_POLL_INTERVAL_MS, poll_interval_ms), MAX_POLL_INTERVAL_MS),
        "message.max.bytes": settings.message_max_bytes,
        "max.partition.fetch.bytes": min(settings.fetch_max_bytes, max(settings.message_max_bytes, 1_048_576)),
        "fetch.max.bytes": max(settings.fetch_max_bytes, settings.message_max_bytes),
        "receive.message.max.bytes": max(settings.fetch_max_bytes, settings.message_max_bytes) + 65_536,
        "queued.min.messages": 2 * BATCH_RECORDS,
        "fetch.queue.backoff.ms": FETCH_AGAIN_MS,
        "queued.max.messages.kbytes": max(1, settings.fetch_max_bytes // 1_024),
        "socket.timeout.ms": SOCKET_TIMEOUT_MS,
        "retry.backoff.max.ms": int(REPEAT_WITHIN_SECONDS * 1_000),
        "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
        "allow.auto.create.topics": False,
        "statistics.interval.ms": STATISTICS_INTERVAL_MS,
    }
    if group_protocol == "consumer":
        config["group.remote.assignor"] = ASSIGNOR
    else:
        config["partition.assignment.strategy"] = ASSIGNOR
        config["session.timeout.ms"] = int(settings.session_timeout_seconds * 1_000)
        config["heartbeat.interval.ms"] = max(100, int(min(3.0, settings.session_timeout_seconds / 4) * 1_000))
    return config
