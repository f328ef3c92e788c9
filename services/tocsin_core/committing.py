"""Commits, one after the other: none begins before the last one was answered.

A commit that is sent without waiting may be overtaken: the client sends it again after a time-out, behind a later one,
and the group's offset steps back; or a hand-over believes it made while it is still on its way, and the next owner
begins below what is done. Either delivers again what was delivered, with nobody having crashed. So every commit waits
for its answer, in a thread of its own, because the poll thread must go on polling; what was acknowledged, and nothing
else, counts as committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from tocsin_core.assignment import Assignment
from tocsin_core.commits import Commit

Due = tuple[Assignment, Commit]
Answers = Sequence[str]
"""For each commit that was sent why it was refused, or "" where it was made."""


class Committer:
    """The commits of one group member. Every method belongs to the poll thread."""

    def __init__(self, send: Callable[[Sequence[Due]], Answers]) -> None:
        """`send` commits and returns when the broker has answered, in whatever thread it is called; it never raises."""
        self._send = send
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-consumer-commit")
        self._sent: list[Due] = []
        self._answer: Future[Answers] | None = None

    def begin(self, assignments: Iterable[Assignment]) -> list[tuple[Assignment, str]]:
        """Commit what is due in the background, unless a commit is unanswered; return what the last one refused."""
        if self._answer is not None and not self._answer.done():
            return []
        refused = self._take_answer()
        self._sent = find_due(assignments)
        if self._sent:
            self._answer = self._thread.submit(self._send, self._sent)
        return refused

    def finish(self, assignments: Iterable[Assignment], *, timeout_seconds: float) -> list[tuple[Assignment, str]]:
        """Commit what is due and wait for the answer; return what was refused, which is due again.

        Whatever is unanswered goes first, for at most `timeout_seconds`.
        """
        if self._answer is not None:
            wait([self._answer], timeout_seconds)
            if self._answer.done():
                self._take_answer()
        due = find_due(assignments)
        return _settle(due, self._send(due)) if due else []

    def close(self) -> None:
        """Return when nothing is unanswered any more: until then the client must not be let go."""
        self._thread.shutdown(wait=True)

    def _take_answer(self) -> list[tuple[Assignment, str]]:
        if self._answer is None:
            return []
        answer, self._answer = self._answer, None
        return _settle(self._sent, answer.result())


def find_due(assignments: Iterable[Assignment]) -> list[Due]:
    """Return the assignments that have something to commit which was not acknowledged, with what that is."""
    commits = [(each, each.commit) for each in assignments]
    return [(each, commit) for each, commit in commits if commit is not None and commit != each.committed]


def _settle(sent: Sequence[Due], answers: Answers) -> list[tuple[Assignment, str]]:
    for (assignment, commit), reason in zip(sent, answers, strict=True):
        if not reason:
            assignment.committed = commit
    return [(assignment, reason) for (assignment, _), reason in zip(sent, answers, strict=True) if reason]
