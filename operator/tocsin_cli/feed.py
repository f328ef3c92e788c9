"""Lines of a file to HTTP requests, in the order of the file for each recipient, and fast over all of them.

Order per recipient is the order of 202s, so a line waits for the answer to the last line of the same recipient and
for nobody else's. One request at a time would be right too, and as slow as the longest way to the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from tocsin_cli.poster import Answer
from tocsin_core.codec import UNREADABLE_JSON
from tocsin_core.message import MAX_BODY_BYTES

LINES_AHEAD = 256
"""How many lines may be under way at once: enough to fill the broker's batches, few enough to stay small."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line of input that is not blank. `is_whole` is False where it was too long to be read to its end."""

    number: int
    body: bytes
    is_whole: bool = True


class Target(msgspec.Struct, frozen=True):
    """The parts of a body that decide about order and counting; everything else is the service's to judge."""

    to_id: str | int | None = msgspec.field(name="toID", default=None)
    channels: list[str] | None = None


Post = Callable[[bytes], Awaitable[Answer]]
Report = Callable[[Line, Target, Answer], None]


def read_target(body: bytes) -> Target:
    """Return recipient and channels of a body, as far as it has them: what is malformed is the service's to refuse."""
    try:
        return msgspec.json.decode(body, type=Target)
    except UNREADABLE_JSON:
        return Target()


async def read_lines(source: Path | None, stop: asyncio.Event) -> AsyncIterator[Line]:
    """Yield the lines of a file (None: standard input) that are not blank, with their numbers from 1, until `stop`.

    A daemon thread reads, because a read from a pipe cannot be cancelled and must not hold up the end of the process.
    """
    queue: asyncio.Queue[Line | None] = asyncio.Queue()
    slots = threading.Semaphore(LINES_AHEAD)
    threading.Thread(target=_pump, args=(source, queue, slots, asyncio.get_running_loop()), daemon=True).start()
    stopped = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            following = asyncio.create_task(queue.get())
            await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                return
            slots.release()
            if (line := following.result()) is None:
                return
            if line.body or not line.is_whole:
                yield line
    finally:
        stopped.cancel()


def _pump(
    source: Path | None, queue: asyncio.Queue[Line | None], slots: threading.Semaphore, loop: asyncio.AbstractEventLoop
) -> None:
    # RuntimeError: the loop ended first, and nobody wants another line.
    with contextlib.suppress(RuntimeError), _open(source) as stream:
        for number in count(1):
            line = _read_line(stream, number)
            slots.acquire()
            loop.call_soon_threadsafe(queue.put_nowait, line)
            if line is None:
                return


def _open(source: Path | None) -> contextlib.AbstractContextManager[BinaryIO]:
    return source.open("rb") if source is not None else contextlib.nullcontext(sys.stdin.buffer)


async def post_lines(lines: AsyncIterator[Line], post: Post, report: Report) -> None:
    """Post every line; for one recipient in the order of the lines, each after the answer to the one before."""
    slots = asyncio.Semaphore(LINES_AHEAD)
    last_of: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        async for line in lines:
            await slots.acquire()
            target = read_target(line.body)
            recipient = str(target.to_id)
            task = group.create_task(_post_one(line, target, post, report, last_of.get(recipient)))
            last_of[recipient] = task
            task.add_done_callback(partial(_forget, last_of, recipient))
            task.add_done_callback(lambda _: slots.release())


async def _post_one(line: Line, target: Target, post: Post, report: Report, before: asyncio.Task[None] | None) -> None:
    if before is not None:
        await asyncio.wait({before})
    if not line.is_whole:
        report(line, target, Answer(0, None, f"longer than {MAX_BODY_BYTES} bytes, the most one request may measure"))
        return
    report(line, target, await post(line.body))


def _forget(last_of: dict[str, asyncio.Task[None]], recipient: str, done: asyncio.Task[None]) -> None:
    if last_of.get(recipient) is done:
        del last_of[recipient]


def _read_line(stream: BinaryIO, number: int) -> Line | None:
    start = stream.readline(MAX_BODY_BYTES + 2)
    if not start:
        return None
    body = start.removeprefix(BYTE_ORDER_MARK) if number == 1 else start
    is_whole = len(body.rstrip(b"\r\n")) <= MAX_BODY_BYTES
    rest = start
    while not rest.endswith(b"\n") and (rest := stream.readline(MAX_BODY_BYTES)):
        pass  # the tail of a line that is too long, or the file's end
    return Line(number, body.strip() if is_whole else b"", is_whole)
