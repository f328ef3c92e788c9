"""Every input and the outcome of every scaling decision, as metrics.

Gauges of a pipeline disappear with it; a value that is not known is absent rather than zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from tocsin_operator.scaling.model import ChannelInputs, Decision, Inputs
from tocsin_operator.scaling.ports import Report

LABELS = ("namespace", "name")
GAUGES = {
    "replicas": "Consumers that the Deployment asks for.",
    "ready_replicas": "Consumers that are ready.",
    "partitions": "Partitions of the topic.",
    "total_lag": "Notifications accepted and not yet finished.",
    "max_partition_lag": "The same in the partition that has most.",
    "lag_seconds": "Age of the oldest notification not yet finished.",
    "predicted_lag_seconds": "Lag in seconds that would come if the number of consumers stayed.",
    "arrival_per_second": "Notifications arriving per second.",
    "peak_per_second": "Highest arrival rate of the down window.",
    "surge_per_second": "Notifications that surely arrive per second since the last look.",
    "capacity_per_second": "Notifications per second that one consumer can finish.",
    "finished_per_second": "Notifications that the group finishes per second.",
    "ceiling_per_second": "Notifications per second that the downstream takes, where more consumers did not help.",
    "busy_share": "Share of their time that consumers are busy.",
    "throttled_share": "Share of their time that providers hold consumers back.",
}

COUNTS = {
    "stuck_partitions": "Partitions that stand still while others move.",
    "hot_partitions": "Partitions that need more than one consumer can do.",
    "behind_partitions": "Partitions whose backlog is their own trouble.",
}

CHANNEL_GAUGES = {
    "lag": "Notifications not yet finished on the channel.",
    "lag_seconds": "Age of the oldest of them.",
    "held": "Whether the channel is held back, and no consumer is bought for it (1), or not (0).",
}


class ScalingMetrics:
    """The scaler's metrics on one registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._gauges = {
            name: Gauge(f"tocsin_scaling_{name}", text, LABELS, registry=registry) for name, text in GAUGES.items()
        }
        self._counts = {
            name: Gauge(f"tocsin_scaling_{name}", text, LABELS, registry=registry) for name, text in COUNTS.items()
        }
        self._channels = {
            name: Gauge(f"tocsin_scaling_channel_{name}", text, (*LABELS, "channel"), registry=registry)
            for name, text in CHANNEL_GAUGES.items()
        }
        self._desired = Gauge("tocsin_scaling_desired_replicas", "Consumers decided on.", LABELS, registry=registry)
        self._drain = Gauge("tocsin_scaling_drain_seconds", "Predicted seconds to drain.", LABELS, registry=registry)
        self._decisions = Counter(
            "tocsin_scaling_decisions", "Decisions, by reason.", (*LABELS, "reason"), registry=registry
        )
        self._actions = Counter(
            "tocsin_scaling_actions", "Changes of replicas.", (*LABELS, "direction"), registry=registry
        )
        self._failures = Counter(
            "tocsin_scaling_failures", "Passes that failed, by what.", (*LABELS, "source"), registry=registry
        )
        self._known: dict[str, frozenset[str]] = {}
        """The pipelines that have gauges, each with its channels that have."""
        self._shown: dict[str, tuple[Inputs, int, float | None]] = {}
        """What the gauges of each pipeline show: those of an idle one are not set again in each pass."""

    def observe(self, report: Report) -> None:
        """Record one pass."""
        namespace, _, name = report.target.key.partition("/")
        self._known.setdefault(report.target.key, frozenset())
        if report.kafka_failure is not None:
            self._failures.labels(namespace, name, "kafka").inc()
        if report.failure is not None:
            self._failures.labels(namespace, name, "scaling").inc()
        decision = report.decision
        if decision is None:
            return
        shown = (decision.inputs, decision.replicas, decision.drain_seconds)
        if shown != self._shown.get(report.target.key):
            self._show(report.target.key, decision)
            self._shown[report.target.key] = shown
        self._decisions.labels(namespace, name, decision.reason.value).inc()
        if report.has_acted:
            direction = "out" if decision.replicas > decision.inputs.replicas else "in"
            self._actions.labels(namespace, name, direction).inc()

    def _show(self, key: str, decision: Decision) -> None:
        namespace, _, name = key.partition("/")
        for field, gauge in self._gauges.items():
            _set(gauge, (namespace, name), getattr(decision.inputs, field))
        for field, gauge in self._counts.items():
            _set(gauge, (namespace, name), len(getattr(decision.inputs, field)))
        if decision.is_trusted:
            self._show_channels(key, decision.inputs.channels)
        _set(self._desired, (namespace, name), decision.replicas)
        _set(self._drain, (namespace, name), decision.drain_seconds)

    def forget_others(self, keys: AbstractSet[str]) -> None:
        """Drop the gauges of pipelines that are gone."""
        for key in self._known.keys() - keys:
            namespace, _, name = key.partition("/")
            self._show_channels(key, ())
            self._shown.pop(key, None)
            for gauge in (*self._gauges.values(), *self._counts.values(), self._desired, self._drain):
                _set(gauge, (namespace, name), None)
            del self._known[key]

    def _show_channels(self, key: str, channels: Sequence[ChannelInputs]) -> None:
        namespace, _, name = key.partition("/")
        names = frozenset(each.name for each in channels)
        for each in channels:
            values = {"lag": each.lag, "lag_seconds": each.lag_seconds, "held": each.hold is not None}
            for field, gauge in self._channels.items():
                _set(gauge, (namespace, name, each.name), values[field])
        for gone in self._known[key] - names:
            for gauge in self._channels.values():
                _set(gauge, (namespace, name, gone), None)
        self._known[key] = names


def _set(gauge: Gauge, labels: tuple[str, ...], value: float | None) -> None:
    if value is not None:
        gauge.labels(*labels).set(value)
        return
    try:
        gauge.remove(*labels)
    except KeyError:
        return  # it was not known before either
