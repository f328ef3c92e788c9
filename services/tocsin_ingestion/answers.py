"""Outcomes to HTTP answers: status, headers and bytes, as one value that any server can write.

Pure. A batch answers 202 when every item was accepted and 207 otherwise, each item with its own status, because a
client must be able to repeat exactly what failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from itertools import count
from typing import NamedTuple

import msgspec

from tocsin_ingestion.problems import MEDIA_TYPE, Problem, ProblemDetails
from tocsin_ingestion.sent import Accepted

_JSON = ("content-type", "application/json")
_REPLAY = ("idempotency-replay", "true")
_ACCEPTED = int(HTTPStatus.ACCEPTED)
"""A plain number: looking up the enumeration's member costs as much as the rest of an item's result."""


class Answer(NamedTuple):
    """An HTTP answer, complete."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class AcceptedBody(msgspec.Struct, frozen=True):
    """Kafka has the notification, under this id."""

    id: str


class ItemResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one item of a batch: `id` if it was accepted (`replayed`: by an earlier request), else `problem`."""

    index: int
    status: int
    id: str | None = None
    replayed: bool = False
    problem: ProblemDetails | None = None


class BatchBody(msgspec.Struct, frozen=True):
    """What came of a batch: one result per item, in the order sent."""

    accepted: int
    refused: int
    results: list[ItemResult]


def build_accepted(accepted: Accepted) -> Answer:
    """Return the 202 for one notification."""
    headers = [_JSON, _REPLAY] if accepted.is_replay else [_JSON]
    return Answer(HTTPStatus.ACCEPTED, headers, msgspec.json.encode(AcceptedBody(accepted.id)))


def build_refusal(problem: Problem, trace_id: str | None) -> Answer:
    """Return the problem+json answer, with Retry-After where repeating can help."""
    headers = [("content-type", MEDIA_TYPE), *_retry_after([problem]), *problem.headers]
    return Answer(problem.kind.status, headers, msgspec.json.encode(problem.build_details(trace_id)))


def build_batch(outcomes: Sequence[Accepted | Problem]) -> Answer:
    """Return the answer for a batch: 202 if all were accepted, else 207 with a Retry-After if one helps any item."""
    problems = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    body = BatchBody(
        accepted=len(outcomes) - len(problems),
        refused=len(problems),
        results=[*map(_build_result, count(), outcomes)],
    )
    status = HTTPStatus.MULTI_STATUS if problems else HTTPStatus.ACCEPTED
    return Answer(status, [_JSON, *_retry_after(problems)], msgspec.json.encode(body))


def _build_result(index: int, outcome: Accepted | Problem) -> ItemResult:
    if isinstance(outcome, Problem):
        return ItemResult(index, outcome.kind.status, problem=outcome.build_details())
    return ItemResult(index, _ACCEPTED, outcome.id, outcome.is_replay)  # by name it costs twice as much


def _retry_after(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    seconds = max((problem.retry_after_seconds or 0 for problem in problems), default=0)
    return [("retry-after", str(seconds))] if seconds else []
