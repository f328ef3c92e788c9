"""What is counted and said of each request.

At full rate a line per request would cost more than the request: that line is at debug. Refusals are worth knowing, so
they are counted at once and said at info (the client's doing) or warning (ours), but at most once per kind and
interval, with how many there were and one example, whose trace_id a client was given.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog

from tocsin_ingestion.metrics import ACCEPTED, REFUSED, REPLAYED
from tocsin_ingestion.problems import Kind, Problem
from tocsin_ingestion.sent import Accepted

REPEAT_AFTER_SECONDS = 10.0


@dataclass(slots=True)
class _Untold:
    """Refusals of one kind since the last line about them."""

    count: int = 0
    last_told: float = float("-inf")
    example: dict[str, Any] = field(default_factory=dict)


class Reporter:
    """Counts every outcome and tells of refusals, bounded. Used on the event loop only."""

    def __init__(self, *, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._clock = clock
        self._untold: dict[Kind, _Untold] = {}
        # Bound here: the lazy logger would be assembled anew for every line, even for those nobody wants.
        self._log = structlog.get_logger(__name__).bind()
        self._tells_each = self._log.is_enabled_for(logging.DEBUG)

    def report(self, outcomes: Sequence[Accepted | Problem], trace_id: str | None) -> None:
        """Count and log what came of one request's notifications."""
        refused = replayed = 0
        for outcome in outcomes:
            if isinstance(outcome, Problem):
                refused += 1
                self._report_refused(outcome, trace_id)
                continue
            replayed += outcome.is_replay
            if self._tells_each:
                self._tell_accepted(outcome, trace_id)
        accepted = len(outcomes) - refused - replayed
        if accepted:
            ACCEPTED.inc(accepted)
        if replayed:
            REPLAYED.inc(replayed)

    def flush(self, *, is_final: bool = False) -> None:
        """Tell of the refusals counted since the last line about their kind, if that is long ago or this is the end."""
        now = self._clock()
        for kind, untold in self._untold.items():
            if untold.count and (is_final or now - untold.last_told >= REPEAT_AFTER_SECONDS):
                self._tell(kind, untold, now)

    def _tell_accepted(self, accepted: Accepted, trace_id: str | None) -> None:
        self._log.debug(
            "notification accepted",
            notification_id=accepted.id,
            trace_id=trace_id,
            topic=self._topic,
            partition=accepted.partition,
            offset=accepted.offset,
            is_replay=accepted.is_replay,
        )

    def _report_refused(self, problem: Problem, trace_id: str | None) -> None:
        REFUSED[problem.kind].inc()
        self._log.debug("notification refused", reason=problem.kind.name, detail=problem.detail, trace_id=trace_id)
        now = self._clock()
        untold = self._untold.setdefault(problem.kind, _Untold())
        untold.count += 1
        # Texts only: a kept exception would keep its frames, and with them a body.
        untold.example = {"detail": problem.detail, "trace_id": trace_id, **problem.describe_cause()}
        if now - untold.last_told >= REPEAT_AFTER_SECONDS:
            self._tell(problem.kind, untold, now)

    def _tell(self, kind: Kind, untold: _Untold, now: float) -> None:
        log = self._log.warning if kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR else self._log.info
        about = {"reason": kind.name, "status": kind.status, "count": untold.count, "topic": self._topic}
        log("notifications refused", **about, **untold.example)
        untold.count, untold.last_told = 0, now
