"""The registry everybody's metrics live in, and those that both services share.

It is prometheus_client's own global registry: process and platform metrics are in it already, and a library that
brings metrics lands there as well. A metric of one service is defined in that service's `metrics` module.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Gauge

registry = REGISTRY

_produced = Counter("tocsin_producer_records", "Records handed to Kafka, by how that ended.", ["outcome"])
produced = {outcome: _produced.labels(outcome) for outcome in ("stored", "refused", "unknown")}
"""Outcomes: stored, refused (never sent), unknown (no answer in time)."""

producer_in_flight = Gauge("tocsin_producer_in_flight", "Records handed over that Kafka has not answered yet.")

producer_oldest_seconds = Gauge("tocsin_producer_oldest_in_flight_seconds", "How long the oldest of them has waited.")
