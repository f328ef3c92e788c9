"""Rule 8, as far as it decides: no pods for what pods do not change.

`effect` finds out what the downstream takes; here that keeps the number down, and probes when its time has come.
"""

from __future__ import annotations

from tocsin_operator.scaling.model import Ceiling, LimitedBy, Reason
from tocsin_operator.scaling.out import grow_before_too_late, grow_for_promise, grow_while_learning
from tocsin_operator.scaling.situation import Situation
from tocsin_operator.scaling.verdict import Verdict, count_pods, show_lag, show_load


def hold_while_nothing_finishes(situation: Situation) -> Verdict | None:
    """Hold while pods run, records wait and none of them gets finished: whatever stops these pods, stops others too."""
    measured, state = situation.measured, situation.state
    if measured is None or measured.backlog.unsettled == 0:
        return None
    now_seconds, patience_seconds = situation.observation.time_seconds, situation.config.stuck_seconds
    since = [each for each in state.stalled_since if each is not None]
    waiting = sum(1 for lag in measured.backlog.lags if lag > 0)
    is_still = len(since) >= waiting and max(since, default=now_seconds) <= now_seconds - patience_seconds
    if not is_still or (state.progressed_seconds or 0.0) > now_seconds - patience_seconds:
        return None
    message = (
        f"{show_lag(situation)}, and {count_pods(situation.observation.replicas.ready)} finished nothing for "
        f"{now_seconds - min(since):.0f} s: more would not help; see the consumers' logs and their providers"
    )
    return Verdict(situation.current, Reason.NOTHING_FINISHES, message, LimitedBy.DOWNSTREAM, situation.ups)


def respect_ceiling(situation: Situation) -> Verdict | None:
    """Keep to the pods that reach the downstream's ceiling; probe with one step when the ceiling has stood its time."""
    ceiling = situation.state.ceiling
    if ceiling is None or not _wants_more(situation):
        return None
    what = f"the downstream takes {ceiling.per_second:.1f}/s, and more pods did not raise it"
    now_seconds, current = situation.observation.time_seconds, situation.current
    if now_seconds >= ceiling.until_seconds and not situation.is_starting and situation.state.effect is None:
        return _probe(situation, what)
    allowed = _find_allowed(situation, ceiling)
    if allowed < current:
        message = f"{what}: back to {count_pods(allowed)}; {show_lag(situation)}"
        return Verdict(allowed, Reason.DOWNSTREAM_BOUND, message, LimitedBy.DOWNSTREAM, situation.ups)
    left_seconds = max(0.0, ceiling.until_seconds - now_seconds)
    message = f"{what}; the next try is in {left_seconds:.0f} s; {show_load(situation)}; {show_lag(situation)}"
    return Verdict(current, Reason.DOWNSTREAM_BOUND, message, LimitedBy.DOWNSTREAM, situation.ups)


def _wants_more(situation: Situation) -> bool:
    wanted = grow_while_learning(situation) or grow_before_too_late(situation) or grow_for_promise(situation)
    return wanted is not None and (wanted.replicas > situation.current or wanted.reason is Reason.AT_LIMIT)


def _find_allowed(situation: Situation, ceiling: Ceiling) -> int:
    """Return the smallest useful count that reaches the ceiling; a probe under way is left alone."""
    if situation.state.effect is not None:
        return situation.current
    return next((count for count in situation.counts if count >= ceiling.replicas), situation.current)


def _probe(situation: Situation, what: str) -> Verdict:
    larger = next((count for count in situation.counts if count > situation.current), situation.current)
    message = f"{what}: one step to {count_pods(larger)} to see whether that still holds; {show_lag(situation)}"
    return Verdict(larger, Reason.DOWNSTREAM_BOUND, message, LimitedBy.DOWNSTREAM, situation.ups)
