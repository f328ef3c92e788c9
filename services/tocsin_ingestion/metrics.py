"""What ingestion counts, beside what the core counts for every service."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import REGISTRY, Counter, Gauge

from tocsin_ingestion.problems import KINDS

ACCEPTED = Counter("tocsin_ingestion_accepted", "Notifications answered 202 for the first time", registry=REGISTRY)
REPLAYED = Counter("tocsin_ingestion_replayed", "Notifications answered 202 from an earlier request", registry=REGISTRY)
REFUSED = Counter("tocsin_ingestion_refused", "Notifications refused, by reason", ["reason"], registry=REGISTRY)
_in_flight = Gauge("tocsin_ingestion_in_flight", "Notifications waiting for Kafka", registry=REGISTRY)
_oldest = Gauge("tocsin_ingestion_oldest_in_flight_seconds", "How long the oldest has waited", registry=REGISTRY)

for _kind in KINDS:
    REFUSED.labels(_kind.name)  # every reason exists from the start, so that a rate over it is never missing


def observe_sink(in_flight: Callable[[], float], oldest_in_flight_seconds: Callable[[], float]) -> None:
    """Read both gauges from the producer whenever metrics are asked for."""
    _in_flight.set_function(in_flight)
    _oldest.set_function(oldest_in_flight_seconds)
