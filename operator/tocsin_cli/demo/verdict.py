"""What the demo shows, said in sentences. Pure."""

from __future__ import annotations

from tocsin_cli.dev.tally import Tally

EXIT_FINE = 0
EXIT_BROKEN = 1


def went_out(tally: Tally) -> bool:
    """Return whether there were ever more consumers than at the beginning."""
    return tally.replicas_max > 1


def came_in(tally: Tally) -> bool:
    """Return whether the consumers were as few at the end as at the beginning."""
    return tally.replicas_end == 1


def decide_demo_exit_code(tally: Tally) -> int:
    """Return 0 only if something was delivered, nothing is missing, and nothing was received twice."""
    return EXIT_BROKEN if _count_missing(tally) or tally.duplicates or not tally.delivered else EXIT_FINE


def explain_demo(tally: Tally) -> str:
    """Return the demo's result, one sentence per line."""
    promise = "Nothing lost, nothing twice" if decide_demo_exit_code(tally) == EXIT_FINE else "THE PROMISE IS BROKEN"
    counted = (
        f"{promise}: of {tally.accepted:,} notifications answered 202, the receiver got {tally.delivered:,}"
        f" ({_count_missing(tally):,} missing, {tally.duplicates:,} duplicates)."
    )
    return "\n".join((counted, _explain_scaling(tally)))


def _count_missing(tally: Tally) -> int:
    return tally.lost + tally.waiting


def _explain_scaling(tally: Tally) -> str:
    if not went_out(tally):
        return "One consumer was enough for this load: it never went out. Try a higher RATE."
    if came_in(tally):
        return f"Consumers went out to {tally.replicas_max} and came in to 1, in {len(tally.decisions)} moves."
    return f"Consumers went out to {tally.replicas_max} and have NOT come in yet: {tally.replicas_end} at the end."
