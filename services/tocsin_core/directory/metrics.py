"""How often the directory was asked, and how often that was not necessary. Labels are words of this file."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Counter, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from tocsin_core.metrics import registry

_lookups = Counter(
    "tocsin_directory_lookups",
    "Users the directory was asked about, by what it answered",
    ["result"],
    registry=registry,
)
LOOKUPS = {result: _lookups.labels(result) for result in ("known", "unknown", "invalid", "unavailable")}
BREAKER_STATE = Gauge(
    "tocsin_directory_breaker_state",
    "Whether the user directory is asked (0), tried (1) or left alone (2)",
    registry=registry,
)
CACHE = {"hit": 0, "miss": 0, "stale": 0}
"""Plain numbers, for the event loop alone: a counter's lock costs more than the look at the cache that it counts."""


class _CacheCollector(Collector):
    """Shows `CACHE` as the counter that it is."""

    def collect(self) -> Iterator[Metric]:
        """Return the numbers as they are now."""
        family = CounterMetricFamily(
            "tocsin_directory_cache",
            "Users asked for: remembered (hit), asked about (miss), and of these remembered after all (stale)",
            labels=["result"],
        )
        for result, count in CACHE.items():
            family.add_metric([result], count)
        yield family


registry.register(_CacheCollector())
