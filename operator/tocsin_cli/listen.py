"""`tocsin listen`: what arrives on a person's screen, as one JSON line per frame.

    tocsin listen --user 2
    tocsin listen --user 2 --url https://notify.example.org --count 1

Does what every client of the stream should do: it connects again, with a growing and random pause, unless the service
says that this cannot help, and it drops a notification that it has shown already. Exit 0 after --count frames or on
Ctrl-C, 1 if the service refuses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections import OrderedDict
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tocsin_cli.credentials import add_token_argument, build_headers, read_token
from tocsin_core.errors import TocsinError
from tocsin_core.lifecycle import stop_on_signals

DEFAULT_URL = "http://127.0.0.1:8080"
PATH = "/v1/stream"
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
MAX_FRAME_BYTES = 1_048_576
REMEMBERED = 1_000
FINAL_CODES = frozenset({4400, 4401, 4403, 4404, 4429})
"""Close codes after which connecting again cannot help."""


class ListenError(TocsinError):
    """The flags do not say where to listen; the text says what is wrong."""


class _Frame(msgspec.Struct, frozen=True):
    id: str
    channel: str


class Memory:
    """The last notifications that were shown. A repeat is rare and soon, so a bounded memory is enough."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def is_new(self, notification_id: str, channel: str) -> bool:
        """Return whether this was not shown yet, and remember it."""
        key = (notification_id, channel)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)
        return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin listen`."""
    parser.add_argument("--user", required=True, metavar="ID", help="whose notifications")
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the ingestion service (default: {DEFAULT_URL})")
    add_token_argument(parser)
    parser.add_argument("--count", type=int, default=0, metavar="N", help="end after so many (default: go on)")


def run(arguments: argparse.Namespace) -> int:
    """Listen and return the exit code. Raise ListenError if the address is none."""
    address = build_address(arguments.url, arguments.user)
    return asyncio.run(_run(address, read_token(arguments.token_file), arguments.count))


def build_address(url: str, user_id: str) -> str:
    """Return the stream's address at a service. Raise ListenError if that one's address is not of HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise ListenError(f"--url {url}: write the ingestion service's address, for example {DEFAULT_URL}")
    path = parts.path.rstrip("/") + PATH
    return urlunsplit((SCHEMES[parts.scheme], parts.netloc, path, f"user={quote(user_id, safe='')}", ""))


async def _run(address: str, token: str, count: int) -> int:
    stop = stop_on_signals()
    listening = asyncio.create_task(_listen(address, token, count))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not listening.done():
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        return 0
    return await listening


async def _listen(address: str, token: str, count: int) -> int:
    memory, shown = Memory(), 0
    connecting = connect(address, additional_headers=build_headers(token), max_size=MAX_FRAME_BYTES, compression=None)
    try:
        async for connection in connecting:
            _say("connected")
            try:
                while shown < count or count <= 0:
                    shown += await _show_next(connection, memory)
            except ConnectionClosed as closed:
                code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "connection lost")
                _say(f"closed with {code}: {reason}")
                if code in FINAL_CODES:
                    return 1
            else:
                return 0
    except InvalidStatus as refusal:
        _say(f"refused with HTTP {refusal.response.status_code}: has the pipeline a channel of type WebSocket?")
    return 1


async def _show_next(connection: ClientConnection, memory: Memory) -> bool:
    text = await connection.recv(decode=True)
    frame = msgspec.json.decode(text, type=_Frame)
    is_new = memory.is_new(frame.id, frame.channel)
    if is_new:
        print(text, flush=True)
    return is_new


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
