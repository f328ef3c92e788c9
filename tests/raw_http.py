"""HTTP/1.1 as bytes on a socket: what no client library would send, and what came back, made comparable."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

LAST = b"GET /last HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"
"""Sent after everything else: whoever is still answered on the connection is told that it ends."""
QUIET_SECONDS = 10.0
"""A server that says nothing for so long waits for more."""
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[57][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_TRACE = re.compile(rb'"traceID":"[0-9a-f]{32}"')
_MOMENT = re.compile(rb"it is [0-9T:+-]+ here")


class Heard(NamedTuple):
    """What a server said on one connection, and how it ended: `closed`, `reset` or `open`."""

    data: bytes
    ending: str


class Reply(NamedTuple):
    """One answer, without what differs from request to request: ids, trace ids, the date."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def build_request(
    body: bytes | Mapping[str, Any] | list[Any] = b"",
    *,
    method: str = "POST",
    target: str = "/v1/notifications",
    version: str = "1.1",
    headers: Iterable[tuple[str, str]] = (),
    content_type: str | None = "application/json",
    content_length: str | None = "",
) -> bytes:
    """Return a request as bytes; `content_length` "" is the true one, None is none."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/{version}", "Host: tocsin", "User-Agent: raw/1", "Accept: */*"]
    lines += [f"Content-Type: {content_type}"] if content_type is not None else []
    lines += [f"Content-Length: {content_length or len(data)}"] if content_length is not None else []
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data


async def converse(
    port: int,
    parts: Iterable[bytes],
    *,
    pause_seconds: float = 0.0,
    quiet_seconds: float = QUIET_SECONDS,
) -> Heard:
    """Send the parts one by one, and return all that comes back until the server closes or has nothing more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = asyncio.create_task(_send(writer, parts, pause_seconds))
    heard = bytearray()
    try:
        while True:
            async with asyncio.timeout(quiet_seconds):
                data = await reader.read(65_536)
            if not data:
                return Heard(bytes(heard), "closed")
            heard += data
    except TimeoutError:
        return Heard(bytes(heard), "open")
    except ConnectionError:
        return Heard(bytes(heard), "reset")
    finally:
        sending.cancel()
        await asyncio.wait((sending,))
        writer.transport.abort()


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Return the next answer on a connection that goes on; it has a Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    (reply,) = read_replies(head + await reader.readexactly(length))
    return reply


async def _send(writer: asyncio.StreamWriter, parts: Iterable[bytes], pause_seconds: float) -> None:
    for part in parts:
        writer.write(part)
        try:
            await writer.drain()
        except ConnectionError:
            return
        if pause_seconds:
            await asyncio.sleep(pause_seconds)


def normalise(data: bytes) -> bytes:
    """Return the text without ids, trace ids and moments."""
    return _MOMENT.sub(b"it is now here", _TRACE.sub(b'"traceID":"T"', _UUID.sub(b"ID", data)))


def read_replies(data: bytes) -> list[Reply]:
    """Return the answers in a stream of them; 100 Continue is one. The last may be cut off: then it is left out."""
    replies: list[Reply] = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        length = int(headers.pop("content-length", "0"))
        if rest.startswith(b"HTTP/1.1 "):
            length = 0  # the answer to a HEAD only says how long it would have been
        if len(rest) < length:
            break
        headers.pop("date", None)
        body, data = rest[:length], rest[length:]
        replies.append(Reply(int(status_line.split()[1]), tuple(sorted(headers.items())), normalise(body)))
    return replies
