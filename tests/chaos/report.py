"""The table, what a person needs to repeat a failure, and the last line that a machine reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from chaos.oracle import Counts, Delivery
from chaos.pipeline import Outcome
from chaos.suite import Result

COLUMNS = ("fault", "sent", "lost", "duplicates", "uncertain", "out of order", "dead letters", "kept")
SHOWN_DELIVERIES = 8


def build_table(results: Sequence[Result]) -> str:
    """Return one row per fault, summed over the seeds, in the order in which the faults first ran."""
    names = list(dict.fromkeys(each.fault.name for each in results))
    rows = [COLUMNS, *(_build_row(name, [each for each in results if each.fault.name == name]) for name in names)]
    rows.append(_build_row("all", results))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(_align(row, widths) for row in rows)


def build_last_line(results: Sequence[Result]) -> str:
    """Return the JSON of the last line."""
    total = _sum(results)
    return json.dumps(
        {
            "lost": total.lost,
            "out_of_order": total.out_of_order,
            "duplicates": total.duplicates,
            "uncertain": total.uncertain,
        },
        separators=(",", ":"),
    )


def describe_failure(result: Result, bug: str) -> str:
    """Return why a fault failed, how to repeat it, and the deliveries concerned with their receipts."""
    again = f"--seed {result.seed} --only {result.fault.name}{f' --break {bug}' if bug else ''}"
    lines = [
        f"FAILED: {result.fault.name} with seed {result.seed}",
        f"  again: PYTHONPATH=tests .venv/bin/python -m chaos {again}",
        f"  logs:  {result.directory}",
    ]
    for shape, outcome in zip(result.fault.shapes, result.outcomes, strict=True):
        store = "store" if shape.has_store else "no store"
        for breach in outcome.breaches:
            lines.append(f"  {shape.protocol}, {shape.ordering}, {store}: {breach.reason}")
            lines += [f"    {_describe_delivery(each, outcome)}" for each in breach.deliveries[:SHOWN_DELIVERIES]]
            if (more := len(breach.deliveries) - SHOWN_DELIVERIES) > 0:
                lines.append(f"    and {more} more")
    return "\n".join(lines)


def _describe_delivery(delivery: Delivery, outcome: Outcome) -> str:
    places = [
        f"{place}{'' if each.is_taken else ' (refused)'}"
        for place, each in enumerate(outcome.receipts)
        if each.delivery == delivery
    ]
    return f"{delivery.id} on {delivery.channel}: receipts {', '.join(places) or 'none'}"


def _build_row(name: str, results: Sequence[Result]) -> tuple[str, ...]:
    counts = _sum(results)
    numbers = (
        counts.sent,
        counts.lost,
        counts.duplicates,
        counts.uncertain,
        counts.out_of_order,
        counts.dead_lettered,
    )
    kept = f"{sum(each.is_kept for each in results)}/{len(results)}"
    return (name, *(f"{number:,}" for number in numbers), kept)


def _sum(results: Sequence[Result]) -> Counts:
    return sum((each.counts for each in results), Counts())


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = row
    cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
    return "  ".join([name.ljust(widths[0]), *cells])
