"""The rules that need no measurement: what the owner asked for, what cannot be known, what is outside the range.

They come first, and each is a few comparisons.
"""

from __future__ import annotations

from tocsin_operator.scaling.model import LimitedBy, Reason
from tocsin_operator.scaling.situation import Situation
from tocsin_operator.scaling.verdict import Verdict, choose, count_pods


def keep_suspended(situation: Situation) -> Verdict | None:
    """Keep a suspended pipeline without consumers."""
    if not situation.config.is_suspended:
        return None
    return Verdict(0, Reason.SUSPENDED, "spec.suspend is true: no consumers run", LimitedBy.SUSPENDED)


def follow_owner(situation: Situation) -> Verdict | None:
    """Follow spec.consumer.replicas in mode Manual: /scale sets it, for a person, an HPA or KEDA."""
    if situation.config.mode != "Manual":
        return None
    wanted = situation.config.manual_replicas
    message = f"mode is Manual: consumer.replicas says {wanted}; lag is only reported"
    return Verdict(wanted, Reason.MANUAL, message, LimitedBy.MANUAL)


def freeze_on_doubt(situation: Situation) -> Verdict | None:
    """Lower nothing without trustworthy data; after the grace time do what onMetricsUnavailable says."""
    if not situation.doubt:
        return None
    config, current = situation.config, situation.current
    since_seconds = situation.state.frozen_since_seconds
    elapsed_seconds = 0.0 if since_seconds is None else situation.observation.time_seconds - since_seconds
    target, effect = max(current, situation.bounds.lower), "replicas are held"
    if elapsed_seconds >= config.metrics_grace_seconds:
        if config.on_metrics_unavailable == "ScaleToMin":
            target, effect = max(min(1, current), situation.bounds.lower), "onMetricsUnavailable is ScaleToMin"
        elif config.on_metrics_unavailable == "ScaleToMax":
            target, effect = max(current, situation.bounds.upper), "onMetricsUnavailable is ScaleToMax"
    message = f"{situation.doubt}; for {elapsed_seconds:.0f} s no lag that can be trusted: {effect}"
    return Verdict(target, Reason.METRICS_UNAVAILABLE, message, LimitedBy.METRICS_UNAVAILABLE)


def return_into_bounds(situation: Situation) -> Verdict | None:
    """Bring back a number outside the range (set by hand, or the range moved), to what the load needs if known."""
    bounds, current = situation.bounds, situation.current
    if bounds.lower <= current <= bounds.upper:
        return None
    if current > bounds.upper:
        what = "the topic's partitions" if bounds.upper_limit is LimitedBy.PARTITIONS else "maxReplicas"
        message = f"{count_pods(current)} are more than {what} allow: {situation.most}"
        return Verdict(situation.most, Reason.OUTSIDE_BOUNDS, message, bounds.upper_limit, situation.ups)
    needed = choose(situation.ups) if situation.load else None
    target = needed.replicas if needed else (situation.most if situation.load else bounds.lower)
    message = f"{count_pods(current)} are fewer than the {bounds.lower} that are always kept: {target} for this load"
    return Verdict(target, Reason.OUTSIDE_BOUNDS, message, bounds.lower_limit, situation.ups)


def wait_for_first_pod(situation: Situation) -> Verdict | None:
    """Hold while not one pod is ready: more of what does not start would not help."""
    replicas = situation.observation.replicas
    if replicas.ready > 0 or replicas.spec == 0:
        return None
    message = f"none of {count_pods(replicas.spec)} is ready, so more would not help: see the Deployment's conditions"
    return Verdict(replicas.spec, Reason.CONSUMERS_NOT_READY, message, LimitedBy.STARTING, situation.ups)
