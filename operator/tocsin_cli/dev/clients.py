"""The session's own clients: a file of lines, generated load, or nobody but those who use curl."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable

from tocsin_cli.credentials import read_token
from tocsin_cli.dev.ledger import Ledger
from tocsin_cli.dev.load import Load
from tocsin_cli.dev.plan import Plan
from tocsin_cli.feed import Line, Target, post_lines, read_lines
from tocsin_cli.poster import Answer, Poster

REASONS_KEPT = 20
LINE_RETRY_SECONDS = 60.0
"""A line of a file is worth patience; generated load is not, or it would bend to the pipeline it is there to press."""


class Clients:
    """Posts what the plan says and enters the answers into the ledger."""

    def __init__(self, plan: Plan, ledger: Ledger, *, on_remark: Callable[[str], None]) -> None:
        self._plan = plan
        self._ledger = ledger
        self._on_remark = on_remark
        self.token = read_token(None)
        """What the clients show to ingestion; a session with API keys of its own puts one here."""
        self.refused_lines = 0
        self.refusals: Counter[str] = Counter()

    @property
    def are_there(self) -> bool:
        """Return whether the plan has any client of its own."""
        return self._plan.input is not None or self._plan.profile is not None

    @property
    def refused(self) -> int:
        """Return how many requests were refused."""
        return self.refusals.total()

    async def run(self, url: str, stop: asyncio.Event) -> None:
        """Post until there is nothing left to post, or until `stop`; every request is answered when this returns."""
        if self._plan.input is not None:
            async with Poster(url, token=self.token, retry_seconds=LINE_RETRY_SECONDS) as poster:
                await post_lines(read_lines(self._plan.input.path, stop), poster.post, self._on_line)
        elif self._plan.profile is not None:
            async with Poster(url, token=self.token, connections=128) as poster:
                load = Load(self._plan.profile, self._plan.manifest.user_ids)
                await load.run(poster.post, self._on_answer, stop)
        else:
            await stop.wait()

    def _on_line(self, line: Line, target: Target, answer: Answer) -> None:
        if answer.notification_id is not None:
            self._ledger.accept(answer.notification_id, target.channels)
            return
        self.refused_lines += 1
        self._count_refusal(answer.reason)
        print(f"line {line.number}: {answer.reason}", file=sys.stderr, flush=True)

    def _on_answer(self, answer: Answer) -> None:
        if answer.notification_id is not None:
            self._ledger.accept(answer.notification_id)
            return
        if answer.reason not in self.refusals and len(self.refusals) < REASONS_KEPT:
            self._on_remark(f"load refused: {answer.reason}")
        self._count_refusal(answer.reason)

    def _count_refusal(self, reason: str) -> None:
        known = reason in self.refusals or len(self.refusals) < REASONS_KEPT
        self.refusals[reason if known else "other reasons"] += 1
