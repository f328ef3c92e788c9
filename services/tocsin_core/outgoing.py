"""A record on its way to Kafka, and what came of it.

An `asyncio.Future` per record was refused: making one, settling it and calling back in a later turn of the loop costs
as much as encoding the notification. Here the listeners are called in the midst of settling; whoever would rather
await makes a future by doing so, and is then a listener like any other: cancelling the wait changes nothing, and a
failure that nobody asks for is nobody's business.

    on its way ──settle()──► settled: Stored, or the exception
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

import msgspec

ANY_PARTITION = -1
OVERHEAD_BYTES = 512
"""What a record takes beside its key and value: headers, and librdkafka's and our own notes about it."""

Headers = Sequence[tuple[str, bytes | None]]
Content = tuple[bytes | None, bytes | None, Headers]
"""What a record says: key, value and headers."""
Listener = Callable[["Outgoing"], object]

_HANDED_OVER: Content = (None, None, ())

_log = logging.getLogger(__name__)


class Stored(msgspec.Struct, frozen=True):
    """Where the broker stored a record; both -1 when nobody waited for its answer (producer_return_successes false)."""

    partition: int
    offset: int


class Outgoing(msgspec.Struct, eq=False):
    """A record that somebody sent. `outcome` is None until that is known."""

    topic: str
    content: Content
    partition: int = ANY_PARTITION
    size_bytes: int = 0
    sent_at: float = 0.0
    is_answered: bool = False
    """Whether Kafka has done with it, or the producer; with producer_return_successes false it is settled before."""
    outcome: Stored | Exception | None = None
    listeners: tuple[Listener, ...] = ()

    def __await__(self) -> Generator[Any, None, Stored]:
        """Wait for the outcome, however long that takes. Raise it if it is an exception."""
        if self.outcome is None:
            waiter = asyncio.get_running_loop().create_future()
            self.call_when_settled(lambda _: _end_wait(waiter))
            yield from waiter.__await__()
        assert self.outcome is not None, "that was waited for"  # noqa: S101 - a programming error
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def take_content(self) -> Content:
        """Return what the record says, and let go of it: answers may be long in coming."""
        content, self.content = self.content, _HANDED_OVER
        return content

    def call_when_settled(self, listener: Listener) -> None:
        """Call a listener, which is not expected to raise, as soon as the outcome is known: now, if it is."""
        if self.outcome is None:
            self.listeners += (listener,)
        else:
            listener(self)

    def settle(self, outcome: Stored | Exception) -> None:
        """Say what came of it; the first word counts."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        if not self.listeners:
            return
        listeners, self.listeners = self.listeners, ()  # who listens holds the record: a cycle, without this
        for listener in listeners:
            try:
                listener(self)
            except Exception:  # noqa: BLE001 - one who fails must not cost the others their answers
                _log.exception("a listener of a record failed")


def call_when_all_settled(records: list[Outgoing], callback: Callable[[], object]) -> None:
    """Call back once every one of `records`, which is used up meanwhile, is settled: now, if they are.

    It listens to one at a time, the last that is not settled: reports come partition by partition, so a few of them are
    listened to, and counting would be a call per record.
    """
    while records and records[-1].outcome is not None:
        records.pop()
    if records:
        records[-1].call_when_settled(lambda _: call_when_all_settled(records, callback))
    else:
        callback()


async def wait_until_settled(records: Sequence[Outgoing], *, timeout_seconds: float) -> None:
    """Wait until every one of `records` is settled, at most so long."""
    waiter = asyncio.get_running_loop().create_future()
    call_when_all_settled([*records], lambda: _end_wait(waiter))
    await asyncio.wait((waiter,), timeout=timeout_seconds)


def _end_wait(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # else who waited was cancelled
        waiter.set_result(None)
