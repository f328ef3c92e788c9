"""A pipeline's spec as the rules read it."""

from __future__ import annotations

from tocsin_operator.model import PipelineSpec
from tocsin_operator.scaling.model import Config


def build_scaling_config(spec: PipelineSpec) -> Config:
    """Return the rules' config of a pipeline: its consumer.scaling and channels, suspend, and what Manual sets."""
    scaling = spec.consumer.scaling
    return Config(
        mode=scaling.mode,
        is_suspended=spec.suspend,
        manual_replicas=spec.consumer.replicas,
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        max_lag_seconds=scaling.max_lag_seconds,
        interval_seconds=scaling.interval_seconds,
        cooldown_seconds=scaling.cooldown_seconds,
        down_window_seconds=scaling.down_window_seconds,
        capacity_per_second=scaling.capacity_per_second,
        on_metrics_unavailable=scaling.on_metrics_unavailable,
        channels=tuple(channel.name for channel in spec.consumer.channels),
    )
