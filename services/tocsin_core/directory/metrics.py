"""How often the directory was asked, and how often that was not necessary. Labels are words of this file."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from tocsin_core.metrics import LoopCounter, registry

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
CACHE = LoopCounter(
    "tocsin_directory_cache",
    "Users asked for: remembered (hit), asked about (miss), and of these remembered after all (stale)",
    label="result",
    values=("hit", "miss", "stale"),
).counts
