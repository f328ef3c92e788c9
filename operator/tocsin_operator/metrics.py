"""The operator's metrics, in the registry everybody shares."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

reconciles = Counter("tocsin_operator_reconciles", "Looks at pipelines, by how they ended.", ["outcome"])
"""Outcomes: done, gone, retried (a failure that may pass), failed (an error nobody expected), timed_out."""

reconcile_seconds = Histogram(
    "tocsin_operator_reconcile_seconds",
    "How long a look at a pipeline took.",
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0),
)

queue_length = Gauge(
    "tocsin_operator_queue_length", "Pipelines waiting to be looked at, those of the next resync included."
)

api_requests = Counter(
    "tocsin_operator_api_requests",
    "Requests to the API server besides watches, by HTTP method and status.",
    ["method", "code"],
)
"""Code 0 is no answer."""

pipelines = Gauge("tocsin_operator_pipelines", "Pipelines known to this operator.")

is_leading = Gauge("tocsin_operator_is_leading", "1 where this process holds the Lease.")

last_event_seconds = Gauge(
    "tocsin_operator_last_event_timestamp_seconds", "When a watch last delivered anything, in Unix time.", ["kind"]
)
