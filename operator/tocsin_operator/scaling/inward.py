"""Rule 7, inwards: give pods back only when nothing speaks for them.

Going out is urgent and going in never is, so every condition here must hold at once, and the one that does not is
named as what limits the number.
"""

from __future__ import annotations

from typing import NamedTuple

from tocsin_operator.scaling.channels import measure_kept
from tocsin_operator.scaling.demand import is_window_full
from tocsin_operator.scaling.model import LimitedBy, Reason
from tocsin_operator.scaling.situation import Situation
from tocsin_operator.scaling.verdict import Verdict, choose, count_pods, show_lag, show_load


class Goal(NamedTuple):
    """The smaller count that would do, and how it was found."""

    replicas: int
    reason: Reason


def shrink(situation: Situation) -> Verdict | None:
    """Go to the smallest count that carries the down window's peak with room to spare, once everything is quiet."""
    goal = _find_goal(situation)
    if goal is None:
        return None
    obstacle = _find_obstacle(situation)
    peak = situation.measured.peak_per_second if situation.measured else None
    fits = f"{count_pods(goal.replicas)} would carry the window's peak of {peak or 0:.1f}/s"
    if goal.reason is Reason.IDLE:
        fits = f"nothing waits, and nothing arrived for {situation.config.down_window_seconds:.0f} s"
    if goal.reason is Reason.PROBING:
        fits = f"whether {count_pods(goal.replicas)} are enough is not known: one step to find out"
    if obstacle is not None:
        limited_by, wait = obstacle
        message = f"{fits}; {wait}; {show_lag(situation)}"
        return Verdict(situation.current, Reason.WAITING_TO_SCALE_IN, message, limited_by, situation.downs)
    message = f"{fits}; {show_load(situation)}; {show_lag(situation)}"
    at_end = situation.bounds.lower_limit if goal.replicas == situation.bounds.lower else LimitedBy.NONE
    return Verdict(goal.replicas, goal.reason, message, at_end, situation.downs)


def stay(situation: Situation) -> Verdict:
    """Stay: the promise is kept with no pod to spare."""
    bounds = situation.bounds
    if situation.current == 0:
        message = "nothing waits and nothing arrives: the first notification starts a consumer"
        return Verdict(0, Reason.IDLE, message, LimitedBy.MIN_REPLICAS)
    is_at_minimum = situation.current == bounds.lower
    limited_by = bounds.lower_limit if is_at_minimum and bounds.lower > 1 else LimitedBy.NONE
    message = f"{count_pods(situation.current)} for this load: {show_load(situation)}; {show_lag(situation)}"
    return Verdict(situation.current, Reason.WITHIN_PROMISE, message, limited_by, situation.ups)


def _find_goal(situation: Situation) -> Goal | None:
    measured = situation.measured
    if measured is None:
        return None
    kept = measure_kept(situation.state, measured.busy, situation.current)
    smaller = tuple(count for count in situation.counts if kept <= count < situation.current)
    if not smaller:
        return None
    if smaller[0] == 0:
        return Goal(0, Reason.IDLE)
    if situation.load is not None:
        fitting = choose(tuple(each for each in situation.downs if each.replicas >= smaller[0]))
        is_smaller = fitting is not None and fitting.replicas < situation.current
        return Goal(fitting.replicas, Reason.FITS_IN_FEWER) if fitting and is_smaller else None
    if measured.peak_per_second == 0 and not any(
        measured.backlog.lags[index] for index in measured.partitions.ordinary
    ):
        return Goal(smaller[0], Reason.FITS_IN_FEWER)
    # Nobody has ever seen these pods busy. One step at most doubles the load; if that is too much, lag shows it
    # within half the promise, and the capacity it teaches ends the probing.
    return Goal(smaller[-1], Reason.PROBING)


def _find_obstacle(situation: Situation) -> tuple[LimitedBy, str] | None:
    config, now_seconds = situation.config, situation.observation.time_seconds
    if situation.is_starting:
        return LimitedBy.STARTING, "pods are starting or leaving"
    age = situation.served_age
    if situation.measured is None or age.is_at_least or age.seconds > config.quiet_seconds:
        return LimitedBy.NONE, f"lag must be at most {config.quiet_seconds:.1f} s first"
    if not is_window_full(situation.state, now_seconds, config):
        return LimitedBy.DOWN_WINDOW, f"the last {config.down_window_seconds:.0f} s are not all seen yet"
    last_seconds = situation.state.last_scale_seconds
    if last_seconds is not None and now_seconds - last_seconds < config.cooldown_seconds:
        left_seconds = config.cooldown_seconds - (now_seconds - last_seconds)
        return LimitedBy.COOLDOWN, f"cooldown for another {left_seconds:.0f} s"
    return None
