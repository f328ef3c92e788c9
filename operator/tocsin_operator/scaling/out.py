"""Rule 7, outwards: buy pods only if doing nothing breaks the promise, then at once and in one step.

A rebalance is not free, so a burst that drains in time, or a backlog that is draining well enough, buys nothing. One
that cannot drain is not waited for until its last moment.
"""

from __future__ import annotations

from tocsin_operator.scaling.candidates import measure_company
from tocsin_operator.scaling.model import LimitedBy, Reason
from tocsin_operator.scaling.situation import Situation
from tocsin_operator.scaling.verdict import Verdict, choose, count_pods, name_partitions, show_lag, show_load


def grow_while_learning(situation: Situation) -> Verdict | None:
    """Go one useful step at a time while lag grows and capacity is unknown, after there was time to learn it.

    A group that is behind teaches its capacity within three looks; as long as it does, the step waits for it, unless
    the promise is broken already.
    """
    measured, config = situation.measured, situation.config
    if measured is None or situation.load is not None:
        return None
    age_seconds = situation.age.seconds
    if situation.age.is_at_least and age_seconds < config.max_lag_seconds / 2:
        return _watch(situation)
    if age_seconds < config.max_lag_seconds / 2 or measured.is_lag_falling:
        return None
    is_learning = situation.state.run is not None and age_seconds < config.max_lag_seconds
    if is_learning or situation.is_starting or not _is_settled(situation, 3 * config.interval_seconds):
        return _watch(situation)
    target = next((count for count in situation.counts if count > situation.current), situation.current)
    if target == situation.current:
        return _stay_at_limit(situation)
    message = f"{show_lag(situation)}, and growing; {show_load(situation)}: one step to {count_pods(target)}"
    return Verdict(target, Reason.LAG_GROWING, message, LimitedBy.CAPACITY_UNKNOWN)


def grow_for_promise(situation: Situation) -> Verdict | None:
    """Go to the smallest count that carries the load and drains the backlog, if the present one breaks the promise.

    More demand than capacity acts at once, even while pods start. A backlog acts once, and is then given its time.
    """
    config, predicted_seconds = situation.config, situation.predicted_lag_seconds
    now = situation.now
    if now is None or predicted_seconds is None or predicted_seconds <= config.max_lag_seconds:
        return None
    is_overloaded = now.utilisation is not None and now.utilisation > 1
    is_draining = now.drain_seconds is not None and now.drain_seconds <= config.drain_seconds
    if not is_overloaded and (is_draining or _has_bought_for_backlog(situation)):
        return _leave_draining(situation, now.drain_seconds)
    reason = Reason.DEMAND_EXCEEDS_CAPACITY if is_overloaded else Reason.BACKLOG_TOO_LARGE
    why = (
        f"{count_pods(situation.current)} would let lag reach {predicted_seconds:.0f} s, "
        f"{config.max_lag_seconds:.0f} s are promised"
    )
    return _buy(situation, reason, why)


def grow_before_too_late(situation: Situation) -> Verdict | None:
    """Go out once half the promise is gone and the backlog cannot drain, however slowly it grows.

    Just above capacity it grows so slowly that the promise is predicted to break only when hardly anything of it is
    left. But pods may take longer than is assumed, and what moves to them stands still meanwhile: that half is theirs.
    """
    measured, now, config = situation.measured, situation.now, situation.config
    if measured is None or now is None or now.drain_seconds is not None or measured.is_lag_falling:
        return None
    age_seconds = situation.age.seconds
    if age_seconds <= max(config.max_lag_seconds / 2, config.quiet_seconds):
        return None
    left_seconds = max(0.0, config.max_lag_seconds - age_seconds)
    never = "never drains" if situation.current == 1 else "never drain"
    why = (
        f"{count_pods(situation.current)} {never} that, and {left_seconds:.0f} s of the promised "
        f"{config.max_lag_seconds:.0f} s are left"
    )
    return _buy(situation, Reason.DEMAND_EXCEEDS_CAPACITY, why)


def give_lonely_a_pod(situation: Situation) -> Verdict | None:
    """Go to where a hot partition, or one far behind, has a pod nearly to itself: no number of pods does more."""
    measured, load, config = situation.measured, situation.load, situation.config
    if measured is None or load is None or not measured.partitions.lonely:
        return None
    lonely = measured.partitions.lonely
    lag_seconds = measured.backlog.age_of(lonely).seconds
    alone = next(
        (
            count
            for count in situation.counts
            if count > len(lonely) and measure_company(count, load) <= config.company_share
        ),
        situation.most,
    )
    if lag_seconds <= config.max_lag_seconds / 2 or situation.is_starting or situation.current > alone:
        return None
    needs = "needs" if len(lonely) == 1 else "need"
    what = f"{name_partitions(lonely)}, {lag_seconds:.0f} s behind, {needs} more than a pod can do"
    if situation.current == alone:
        message = f"{what}: a more even key or more partitions would help, more pods would not; {show_load(situation)}"
        return Verdict(situation.current, Reason.PARTITION_HOT, message, LimitedBy.HOT_PARTITION, situation.ups)
    message = f"{what}: {count_pods(alone)} leave room for a pod that is hardly shared; {show_load(situation)}"
    return Verdict(alone, Reason.PARTITION_HOT, message, LimitedBy.HOT_PARTITION, situation.ups)


def _buy(situation: Situation, reason: Reason, why: str) -> Verdict:
    """Go to the smallest count that would do, else to the most that is allowed."""
    larger = tuple(candidate for candidate in situation.ups if candidate.replicas > situation.current)
    if not larger:
        return _stay_at_limit(situation)
    chosen = choose(larger) or larger[-1]
    message = f"{show_load(situation)}; {show_lag(situation)}: {why}: {count_pods(chosen.replicas)} needed"
    limited_by = situation.bounds.upper_limit if chosen.refusal else LimitedBy.NONE
    return Verdict(chosen.replicas, reason, message, limited_by, situation.ups)


def _watch(situation: Situation) -> Verdict:
    message = f"{show_lag(situation)}; {show_load(situation)}: watching what {count_pods(situation.current)} can do"
    return Verdict(situation.current, Reason.LEARNING, message, LimitedBy.CAPACITY_UNKNOWN)


def _has_bought_for_backlog(situation: Situation) -> bool:
    config = situation.config
    return situation.is_starting or not _is_settled(situation, situation.startup_seconds + config.drain_seconds)


def _is_settled(situation: Situation, seconds: float) -> bool:
    last_seconds = situation.state.last_scale_up_seconds
    return last_seconds is None or situation.observation.time_seconds - last_seconds >= seconds


def _leave_draining(situation: Situation, drain_seconds: float | None) -> Verdict:
    shown = "" if drain_seconds is None else f", gone in about {drain_seconds:.0f} s"
    message = f"{show_lag(situation)}{shown} with {count_pods(situation.current)}; {show_load(situation)}"
    limited_by = LimitedBy.STARTING if situation.is_starting else LimitedBy.NONE
    return Verdict(situation.current, Reason.DRAINING, message, limited_by, situation.ups)


def _stay_at_limit(situation: Situation) -> Verdict:
    bounds = situation.bounds
    cure = "the topic needs more partitions" if bounds.upper_limit is LimitedBy.PARTITIONS else "raise maxReplicas"
    more = "no more are allowed" if situation.current >= bounds.upper else f"{bounds.upper} would be as busy"
    message = (
        f"{show_load(situation)}; {show_lag(situation)}: {count_pods(situation.current)} do not keep the promise "
        f"and {more}: {cure}"
    )
    return Verdict(situation.current, Reason.AT_LIMIT, message, bounds.upper_limit, situation.ups)
