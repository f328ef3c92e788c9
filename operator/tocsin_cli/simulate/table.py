"""The results of a simulation in words: a table for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tocsin_cli.simulate.run import Run

HEADINGS = ("policy", "over promise", "worst lag", "replica-seconds", "average", "actions", "reversals", "moves")


def build_json(runs: Sequence[Run]) -> dict[str, Any]:
    """Return each policy's score by name."""
    return {
        "policies": {
            run.policy: {
                "over_promise_seconds": run.score.over_promise_seconds,
                "max_lag_seconds": run.score.max_lag_seconds,
                "replica_seconds": run.score.replica_seconds,
                "actions": run.score.actions,
                "moves": run.score.moves,
                "reversals": run.score.reversals,
            }
            for run in runs
        }
    }


def draw_table(runs: Sequence[Run], *, seconds: int) -> str:
    """Return a line per policy; `seconds` is how long was counted."""
    rows = [HEADINGS, *(_build_row(run, seconds) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _build_row(run: Run, seconds: int) -> tuple[str, ...]:
    score = run.score
    return (
        run.policy,
        f"{score.over_promise_seconds} s ({score.over_promise_seconds / seconds:.1%})",
        f"{score.max_lag_seconds} s",
        str(score.replica_seconds),
        f"{score.replica_seconds / seconds:.1f}",
        str(score.actions),
        str(score.reversals),
        str(score.moves),
    )
