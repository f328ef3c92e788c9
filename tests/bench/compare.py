"""Two policies side by side, simulated or real: what one took for each of what the other took. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tocsin_cli.simulate.run import Score

FLOOR = "pinned"


class Job(NamedTuple):
    """One run."""

    trace: str
    policy: str
    seed: int


class Result(NamedTuple):
    """What a policy did in a trace, and how many seconds counted."""

    score: Score
    seconds: int


Results = Mapping[Job, Result]


def compare(results: Results, policy: str, peer: str, traces: Iterable[str]) -> dict[str, float | None]:
    """Return what the policy took for each of what its peer took, summed over traces; None where the peer took none.

    `worst_trace_points` is the largest loss in a trace, in percentage points of its time.
    """
    wanted = set(traces)
    jobs = [job for job in results if job.policy == policy and job.trace in wanted]
    ours = [results[job] for job in jobs]
    theirs = [results[job._replace(policy=peer)] for job in jobs]
    floors = [results[job._replace(policy=FLOOR)].score.over_promise_seconds for job in jobs]

    def excess(found: Sequence[Result]) -> int:
        return sum(each.score.over_promise_seconds - floor for each, floor in zip(found, floors, strict=True))

    def total(found: Sequence[Result], name: str) -> int:
        return sum(getattr(each.score, name) for each in found)

    points = [
        100 * (mine.score.over_promise_seconds - other.score.over_promise_seconds) / mine.seconds
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return {
        "over_promise": _divide(excess(ours), excess(theirs)),
        "replica_seconds": _divide(total(ours, "replica_seconds"), total(theirs, "replica_seconds")),
        "actions": _divide(total(ours, "actions"), total(theirs, "actions")),
        "moves": _divide(total(ours, "moves"), total(theirs, "moves")),
        "worst_trace_points": round(max(points), 2) if points else None,
    }


def _divide(ours: float, theirs: float) -> float | None:
    return round(max(0.0, ours) / theirs, 3) if theirs > 0 else None
