"""Rule 9, where it ends: what may be done with the number that the other rules found.

Advisory says it and does nothing; ScaleUpOnly lets a person take pods away. The rules before do not know of modes, so
that an advice is exactly what Auto would have done.
"""

from __future__ import annotations

from tocsin_operator.scaling.model import LimitedBy, Reason
from tocsin_operator.scaling.situation import Situation
from tocsin_operator.scaling.verdict import Verdict, count_pods

ALWAYS_DONE = {Reason.SUSPENDED, Reason.MANUAL}
ALWAYS_LOWERED = {*ALWAYS_DONE, Reason.OUTSIDE_BOUNDS}


def restrict_to_mode(situation: Situation, verdict: Verdict) -> Verdict:
    """Return what the mode leaves of a verdict."""
    mode = situation.config.mode
    if mode == "Advisory" and verdict.reason not in ALWAYS_DONE:
        return _advise(situation, verdict)
    if mode == "ScaleUpOnly" and verdict.replicas < situation.current and verdict.reason not in ALWAYS_LOWERED:
        message = f"mode is ScaleUpOnly: {count_pods(situation.current)} stay; {verdict.message}"
        return verdict._replace(replicas=situation.current, message=message, limited_by=LimitedBy.SCALE_UP_ONLY)
    return verdict


def _advise(situation: Situation, verdict: Verdict) -> Verdict:
    wanted = situation.config.manual_replicas
    message = (
        f"mode is Advisory: consumer.replicas says {wanted}, Auto would run {count_pods(verdict.replicas)}: "
        f"{verdict.message}"
    )
    return verdict._replace(replicas=wanted, message=message, limited_by=LimitedBy.ADVISORY)
