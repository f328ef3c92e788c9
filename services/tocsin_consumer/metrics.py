"""The consumer's own metrics. The names are fixed: the operator's scaler reads the counters, dashboards the rest.

Capacity per pod is `processed` over `busy_slot_seconds / concurrency`, so both are counters of the same process and
waiting is in neither.
"""

from __future__ import annotations

import functools
from enum import StrEnum

from prometheus_client import Counter, Gauge, Histogram

from tocsin_core.metrics import LoopCounter


class Outcome(StrEnum):
    """The ends a notification can reach on a channel."""

    DELIVERED = "delivered"
    DEAD_LETTERED = "dead_lettered"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"


DELIVERIES = Counter(
    "tocsin_deliveries_total", "Notifications that reached an end, by channel and outcome", ["channel", "outcome"]
)
ATTEMPTS_FAILED = Counter("tocsin_delivery_failed_attempts_total", "Sends that failed, by channel", ["channel"])
SEND_SECONDS = Histogram(
    "tocsin_delivery_send_seconds",
    "How long one send took, by channel",
    ["channel"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
UNCERTAIN_RESENDS = Counter(
    "tocsin_uncertain_resends_total", "Sends repeated although an earlier one may have arrived, by channel", ["channel"]
)
UNCLAIMED_SENDS = Counter(
    "tocsin_unclaimed_sends_total",
    "Sends made without a claim while the store was away, on channels whose repeats are harmless, by channel",
    ["channel"],
)
DEFERRALS = Counter(
    "tocsin_delivery_deferrals_total", "Deliveries moved to a retry topic, by channel and delay", ["channel", "delay"]
)
BREAKER_STATE = Gauge(
    "tocsin_breaker_state", "Whether a channel is let through (0), on probation (1) or paused (2)", ["channel"]
)
THROTTLED_SECONDS = Counter(
    "tocsin_consumer_throttled_seconds_total",
    "Seconds in which a provider, by a throttle or by being down, or the user directory held back work",
)
CHANNEL_HELD_SECONDS = Counter(
    "tocsin_channel_held_seconds_total",
    "Seconds in which a provider, by a throttle or by being down, held back work of the channel, by channel",
    ["channel"],
)
PROCESSED = Counter("tocsin_consumer_processed_total", "Records that reached an end on every channel")
BUSY_SLOT_SECONDS = LoopCounter("tocsin_consumer_busy_slot_seconds", "Seconds spent sending, summed over all slots")
IN_FLIGHT = Gauge("tocsin_consumer_in_flight", "Sends in flight")
CONCURRENCY = Gauge("tocsin_consumer_concurrency", "Sends that may be in flight at once")
HELD_RECORDS = Gauge("tocsin_consumer_held_records", "Records read from Kafka and not finished")


@functools.cache
def deliveries(channel: str, outcome: Outcome) -> Counter:
    """Return the counter of one channel and outcome. Finding it anew costs more than counting."""
    return DELIVERIES.labels(channel, outcome.value)


@functools.cache
def send_seconds(channel: str) -> Histogram:
    """Return the histogram of one channel."""
    return SEND_SECONDS.labels(channel)
