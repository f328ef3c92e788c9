"""The registry everybody's metrics live in, and those that both services share.

It is prometheus_client's own global registry: process and platform metrics are in it already, and a library that
brings metrics lands there as well. A metric of one service is defined in that service's `metrics` module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

registry = REGISTRY


class LoopCounter(Collector):
    """A counter for what the event loop alone counts, several times per request: plain numbers, by label.

    prometheus_client's own takes a lock and a chain of calls each time, which costs as much as decoding a notification.
    """

    def __init__(self, name: str, documentation: str, *, label: str = "", values: Sequence[str] = ()) -> None:
        self.counts: dict[str, float] = dict.fromkeys(values if label else ("",), 0)
        self._ask: Callable[[], float] | None = None
        self._described = name, documentation, [label] if label else []
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Show the numbers as they are now."""
        if self._ask is not None:
            self.counts[""] = self._ask()
        name, documentation, labels = self._described
        family = CounterMetricFamily(name, documentation, labels=labels)
        for value, count in self.counts.items():
            family.add_metric([value] if labels else [], count)
        yield family

    def set_function(self, ask: Callable[[], float]) -> None:
        """Have the number, which has no label, asked for when it is shown: as fresh as those that stand beside it."""
        self._ask = ask

    def inc(self, amount: float = 1, *, label: str = "") -> None:
        """Count."""
        self.counts[label] = self.counts.get(label, 0) + amount


_produced = Counter("tocsin_producer_records", "Records handed to Kafka, by how that ended.", ["outcome"])
produced = {outcome: _produced.labels(outcome) for outcome in ("stored", "refused", "unknown")}
"""Outcomes: stored, refused (never sent), unknown (no answer in time)."""

producer_in_flight = Gauge("tocsin_producer_in_flight", "Records handed over that Kafka has not answered yet.")

producer_oldest_seconds = Gauge("tocsin_producer_oldest_in_flight_seconds", "How long the oldest of them has waited.")
