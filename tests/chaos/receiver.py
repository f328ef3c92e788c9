"""A receiving server in a process of its own, which writes down every request before it answers.

    python -m chaos.receiver --log FILE --manners JSON

Its log is what the oracle believes: one line per request that arrived whole, in the order of arrival, written with one
`write` to a file opened for appending. It is never killed, so nothing needs to be flushed to a disk. The first line of
its standard output is its port. `POST /hook/<anything>` is a message; `PUT /manners` changes how it answers.
httptools on a bare protocol rather than a web framework: only there can a connection be cut in place of an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httptools
import msgspec

from chaos.manners import Answer, Manners, decide_answer
from chaos.oracle import Receipt

HOST = "127.0.0.1"
REASONS = {200: "OK", 204: "No Content", 422: "Unprocessable", 429: "Too Many Requests", 503: "Unavailable"}


class Entry(msgspec.Struct, frozen=True):
    """One line of the log."""

    id: str
    channel: str
    recipient: str
    sequence: int
    status: int

    @property
    def receipt(self) -> Receipt:
        """Return what the oracle reads of it."""
        is_taken = Answer(self.status, 0.0).is_taken
        return Receipt(self.id, self.channel, self.recipient, self.sequence, is_taken)


class Ledger:
    """The log, and how the server behaves."""

    def __init__(self, path: Path, manners: Manners) -> None:
        self.manners = manners
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._attempts: Counter[tuple[str, str]] = Counter()

    def enter(self, body: bytes) -> Answer:
        """Write a request down and return what to do with it."""
        data = msgspec.json.decode(body)["data"]
        delivery = (data["id"], data["channel"])
        self._attempts[delivery] += 1
        answer = decide_answer(self.manners, *delivery, self._attempts[delivery])
        entry = Entry(data["id"], data["channel"], data["toID"], int(data["message"]), answer.status)
        os.write(self._file, msgspec.json.encode(entry) + b"\n")
        return answer


class Connection(asyncio.Protocol):
    """One connection: requests one after the other."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url == b"/manners":
            self._ledger.manners = msgspec.json.decode(self._body, type=Manners)
            self._answer(Answer(204, 0.0))
            return
        answer = self._ledger.enter(self._body)
        asyncio.get_running_loop().call_later(answer.delay_seconds, self._answer, answer)

    def _answer(self, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        if answer.status == 0:
            self._transport.abort()
            return
        retry = "" if answer.retry_after_seconds is None else f"retry-after: {answer.retry_after_seconds}\r\n"
        head = f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\ncontent-length: 0\r\n{retry}\r\n"
        self._transport.write(head.encode())


def read_log(path: Path, *, start: int = 0) -> tuple[list[Receipt], int]:
    """Return the receipts from byte `start` on, and where the next reading starts."""
    with path.open("rb") as log:
        log.seek(start)
        content = log.read()
    whole = content[: content.rfind(b"\n") + 1]
    decoder = msgspec.json.Decoder(Entry)
    return [decoder.decode(line).receipt for line in whole.splitlines()], start + len(whole)


async def serve(ledger: Ledger) -> None:
    """Serve until killed, on a free port that is printed."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(ledger), HOST, 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main(words: Sequence[str]) -> int:
    """Run the server."""
    parser = argparse.ArgumentParser(prog="chaos.receiver")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--manners", default="{}")
    arguments: Any = parser.parse_args(words)
    asyncio.run(serve(Ledger(arguments.log, msgspec.json.decode(arguments.manners, type=Manners))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
