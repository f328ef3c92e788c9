"""Asks a source: not more at once than it takes, not for longer than agreed, and not at all while it is down.

What waits for its turn for as long as an answer may take is given up: a slow directory must not collect requests until
nobody waits for them any more. That says nothing about the directory, so the breaker does not count it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from tocsin_core.breaker import Breaker, State
from tocsin_core.complaints import Complaints
from tocsin_core.directory import metrics
from tocsin_core.directory.source import Answer, ProfileSource
from tocsin_core.logging import get_logger
from tocsin_core.retry import Backoff
from tocsin_core.users import DirectoryUnavailable

PAUSE = Backoff(first_seconds=1.0, max_seconds=10.0)
"""Shorter than a channel's: a question costs little, and clients wait for its answer."""
OPENED = "the user directory is left alone for a while: it fails"
CLOSED = "the user directory answers again"
ADVICE = "ingestion answers 503 for users it does not remember, consumers wait; nothing is lost and no attempt is spent"

_log = get_logger(__name__)


class Guard:
    """One source and its breaker. Everything here runs on the event loop."""

    def __init__(
        self,
        source: ProfileSource,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._clock = clock
        self._draw = draw
        self._breaker = Breaker(PAUSE)
        self._turns = asyncio.Semaphore(source.max_questions)
        self._complaints = Complaints(_log.warning)
        self._trouble = ""
        metrics.BREAKER_STATE.set_function(lambda: self.state.value)

    @property
    def state(self) -> State:
        """Return whether the source is asked (closed), tried (half-open) or left alone (open)."""
        return self._breaker.state(self._clock())

    @property
    def trouble(self) -> str:
        """Return why the source is not asked like any other time, "" if it is."""
        return "" if self.state is State.CLOSED else self._trouble

    async def ask(self, user_ids: Sequence[str]) -> Sequence[Answer]:
        """Return an answer per user, in order. Raise DirectoryUnavailable if it cannot be had, or is not asked for."""
        self._check_admitted()
        await self._take_turn()
        try:
            self._check_admitted()
            return await self._ask_now(user_ids)
        finally:
            self._turns.release()

    def _check_admitted(self) -> None:
        if not self._breaker.may_start(self._clock()):
            raise DirectoryUnavailable(self._trouble)

    async def _take_turn(self) -> None:
        try:
            async with asyncio.timeout(self._source.timeout_seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise self._complain(f"{self._source.name}: all {self._source.max_questions} questions are open") from None

    async def _ask_now(self, user_ids: Sequence[str]) -> Sequence[Answer]:
        began_at, question = self._clock(), object()
        self._breaker.begin(began_at, question)
        try:
            async with asyncio.timeout(self._source.timeout_seconds):
                answers = await self._source.ask(user_ids)
        except TimeoutError:
            raise self._note_failure(self._explain_silence(), user_ids, began_at) from None
        except DirectoryUnavailable as unavailable:
            raise self._note_failure(str(unavailable), user_ids, began_at) from unavailable
        finally:
            self._breaker.end(question)
        self._note_success(began_at)
        return answers

    def _explain_silence(self) -> str:
        return f"{self._source.name}: no answer within {self._source.timeout_seconds:g} s"

    def _note_success(self, began_at: float) -> None:
        if self._breaker.note_success(self._clock(), began_at=began_at):
            _log.info(CLOSED, source=self._source.name)

    def _note_failure(self, trouble: str, user_ids: Sequence[str], began_at: float) -> DirectoryUnavailable:
        self._trouble = trouble
        now, was_closed = self._clock(), self.state is State.CLOSED
        has_opened = self._breaker.note_failure(
            now,
            began_at=began_at,
            subject_id=user_ids[0],
            is_throttled=False,
            retry_after_seconds=None,
            random=self._draw(),
        )
        if has_opened and was_closed:
            pause_seconds = round(self._breaker.pause_seconds(now), 1)
            _log.warning(OPENED, reason=trouble, pause_seconds=pause_seconds, advice=ADVICE)
        return self._complain(trouble)

    def _complain(self, trouble: str) -> DirectoryUnavailable:
        self._complaints.about("users cannot be looked up", trouble)
        return DirectoryUnavailable(trouble)
