"""Doing with dead letters what was asked: what replay and discard share.

One letter after the other is begun, in order; a window of them is under way at once. A letter is settled only after
the broker has acknowledged everything about it, the marker last: whoever is interrupted has told nothing untrue.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from tocsin_cli.dlq.choice import Choice
from tocsin_cli.dlq.journal import Journal
from tocsin_cli.dlq.letter import Letter, Position, escape_controls
from tocsin_cli.dlq.settlement import Settled
from tocsin_core.errors import KafkaFailure, TocsinError

EXIT_FINE = 0
EXIT_STOPPED = 1
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130
WINDOW = 64
WATCH_SECONDS = 1.0

Act = Callable[[Letter], Awaitable[None]]
Refuse = Callable[[Letter], str | None]
Watch = Callable[[], Awaitable[str | None]]


class ChoiceError(TocsinError):
    """The flags do not say which dead letters are meant."""


@dataclass(slots=True)
class Outcome:
    """What became of the chosen letters."""

    done: int = 0
    refused: int = 0
    settled_before: int = 0
    last: Position | None = None
    missing: list[Position] = field(default_factory=list)
    stopped: str = ""
    is_interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """Return 130 if interrupted, 1 if it ended early or a position is not there, 3 if any was refused, else 0."""
        if self.is_interrupted:
            return EXIT_INTERRUPTED
        if self.stopped or self.missing:
            return EXIT_STOPPED
        return EXIT_REFUSED if self.refused else EXIT_FINE

    def format(self, verb: str) -> str:
        """Return what happened in one line."""
        parts = [
            f"{verb} {self.done:,}",
            *([f"refused {self.refused:,}"] if self.refused else []),
            *([f"passed over {self.settled_before:,} settled before"] if self.settled_before else []),
            *([f"not there: {', '.join(map(str, self.missing))}"] if self.missing else []),
        ]
        last = f"after {self.last}" if self.last else "before the first"
        ending = f"\nstopped {last}: {self.stopped}" if self.stopped else ""
        return ", ".join(parts) + ending


def add_choice_of_all(parser: argparse.ArgumentParser) -> None:
    """Add --all, without which nothing chosen means nothing done."""
    parser.add_argument("--all", action="store_true", help="every dead letter, where neither filters nor positions say")


def check_choice(choice: Choice, *, is_all: bool) -> None:
    """Raise ChoiceError where the flags choose nothing, or both everything and something."""
    if choice.is_everything != is_all:
        raise ChoiceError("which dead letters? Give PARTITION:OFFSET, or filters, or --all (and only one of these)")


class Settling:
    """One run over the chosen letters."""

    def __init__(self, journal: Journal, settled: Settled, *, refuse: Refuse, act: Act) -> None:
        self._journal = journal
        self._settled = settled
        self._refuse = refuse
        self._act = act
        self._slots = asyncio.Semaphore(WINDOW)
        self._beginning: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.outcome = Outcome()

    async def run(self, choice: Choice, *, per_second: float | None = None, watch: Watch | None = None) -> Outcome:
        """Settle the chosen letters, at most `per_second`, until `watch` (asked once a second) or Ctrl-C ends it."""
        with stopping(self._interrupt):
            async with asyncio.TaskGroup() as group:
                self._beginning = group.create_task(self._begin_each(choice, group, Pace(per_second), watch))
            await self._look(watch)
        return self.outcome

    async def _begin_each(self, choice: Choice, group: asyncio.TaskGroup, pace: Pace, watch: Watch | None) -> None:
        missing = set(choice.positions)
        try:
            async for letter in self._journal.choose(choice):
                missing.discard(letter.position)
                if pace.is_due(WATCH_SECONDS):
                    await self._look(watch)
                if not self._is_passed_over(letter):
                    await pace.for_turn()
                    await self._slots.acquire()
                    if self._is_stopping:
                        return
                    group.create_task(self._settle(letter))
        except KafkaFailure as failure:
            self._end(_explain(failure))
        else:
            self.outcome.missing = sorted(missing)

    def _is_passed_over(self, letter: Letter) -> bool:
        if self._settled.find(letter.position) is not None:
            self.outcome.settled_before += 1
            return True
        refusal = self._refuse(letter)
        if refusal is not None:
            self.outcome.refused += 1
            print(escape_controls(f"{letter.position} refused: {refusal}"), file=sys.stderr, flush=True)
        return refusal is not None

    async def _settle(self, letter: Letter) -> None:
        try:
            await self._act(letter)
        except KafkaFailure as failure:
            self._end(f"{letter.position}: {_explain(failure)}")
        else:
            self.outcome.done += 1
            self.outcome.last = max(self.outcome.last or letter.position, letter.position)
        finally:
            self._slots.release()

    async def _look(self, watch: Watch | None) -> None:
        if watch is None or self._is_stopping:
            return
        try:
            reason = await watch()
        except KafkaFailure as failure:
            reason = _explain(failure)
        if reason is not None:
            self._end(reason)

    def _interrupt(self) -> None:
        self.outcome.is_interrupted = True
        self._end("interrupted; what was under way is finished, once more to leave at once")

    def _end(self, reason: str) -> None:
        """Begin nothing more, even in the midst of a long search; what has begun ends by itself."""
        self.outcome.stopped = self.outcome.stopped or reason
        self._is_stopping = True
        if self._beginning is not None:
            self._beginning.cancel()


class Pace:
    """Turns at most so many times a second, and the time of the last look at something else."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = time.monotonic()
        self._looked_at = self._next

    async def for_turn(self) -> None:
        """Wait for the next turn."""
        wait_seconds = self._next - time.monotonic()
        if wait_seconds > 0:
            await asyncio.sleep(wait_seconds)
        self._next = max(self._next, time.monotonic() - self._interval) + self._interval

    def is_due(self, seconds: float) -> bool:
        """Return whether the last look is at least so long ago; then this is the next one."""
        now = time.monotonic()
        is_due = now - self._looked_at >= seconds
        self._looked_at = now if is_due else self._looked_at
        return is_due


def describe_letter(letter: Letter) -> str:
    """Return a letter in a few words."""
    cause = f"{letter.reason or 'no reason'} on {letter.channel or 'no channel'}"
    return f"{letter.notification_id or 'no id'} to {letter.key or 'no key'}, {cause}"


@contextlib.contextmanager
def stopping(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` at the first Ctrl-C or SIGTERM; at the second the process ends as any other would."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def once() -> None:
        for number in before:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        interrupt()

    for number in before:
        loop.add_signal_handler(number, once)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _explain(failure: KafkaFailure) -> str:
    return f"{failure} ({failure.advice})" if failure.advice else str(failure)
