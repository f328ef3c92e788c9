"""Deliberate bugs, one at a time: a suite that has never failed has proved nothing.

Each is a mistake somebody could make in the engine, put in from outside by replacing the one method that holds the
rule. `tests/chaos/test_deliberate_bugs.py` shows that the suite fails with each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any
from unittest import mock

from confluent_kafka import Consumer

from tocsin_consumer import worker
from tocsin_consumer.claims import Claims, NoClaims
from tocsin_core.assignment import Assignment
from tocsin_core.commits import Commit
from tocsin_core.consumer import RecordConsumer
from tocsin_core.offsets import OffsetTracker


class Bug(StrEnum):
    """What can be broken."""

    COMMIT_BEFORE_COMPLETION = "commit-before-completion"
    FENCE_BEFORE_DRAIN = "fence-before-drain"
    DEDUPE_OFF = "dedupe-off"
    EPOCH_CHECK_OFF = "epoch-check-off"


def put_in(bug: Bug) -> None:
    """Break this process for the rest of its life."""
    _BREAKERS[bug]()


def _replace(owner: Any, name: str, replacement: Any) -> None:
    mock.patch.object(owner, name, replacement).start()


def _commit_before_completion() -> None:
    def read_next(self: Assignment) -> Commit | None:
        return Commit(self.next_offset) if self.next_offset >= 0 else None

    _replace(Assignment, "commit", property(read_next))


def _fence_before_drain() -> None:
    hand_over = RecordConsumer._hand_over

    def fence_and_hand_over(self: RecordConsumer, consumer: Consumer, assignments: list[Assignment]) -> None:
        for assignment in assignments:
            assignment.fence()
        hand_over(self, consumer, assignments)

    _replace(RecordConsumer, "_hand_over", fence_and_hand_over)


def _dedupe_off() -> None:
    def build_no_claims(_: Any) -> Claims:
        return NoClaims()

    _replace(worker, "build_claims", build_no_claims)


def _epoch_check_off() -> None:
    def is_allowed(_: OffsetTracker, __: int) -> bool:
        return True

    def leave_open(_: Assignment) -> None:
        pass

    _replace(OffsetTracker, "may_start", is_allowed)
    _replace(Assignment, "fence", leave_open)


_BREAKERS: dict[Bug, Callable[[], None]] = {
    Bug.COMMIT_BEFORE_COMPLETION: _commit_before_completion,
    Bug.FENCE_BEFORE_DRAIN: _fence_before_drain,
    Bug.DEDUPE_OFF: _dedupe_off,
    Bug.EPOCH_CHECK_OFF: _epoch_check_off,
}
