"""Answers as bytes of HTTP/1.1, for the hot path: what uvicorn would write, in one piece.

The headers that uvicorn adds to every answer change once a second (Date) and once more when the server leaves
(Connection: close). So the head of a 202 is built once per change, and an answer costs one concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from tocsin_ingestion.answers import Answer, build_accepted
from tocsin_ingestion.sent import Accepted

Headers = Sequence[tuple[bytes, bytes]]
CLOSE = (b"connection", b"close")
_END_OF_HEADERS = b"\r\n\r\n"
_ID = "00000000-0000-7000-8000-000000000000"
"""Ids are all as long as this one, so that every 202 is the same but for its id."""


class Written:
    """The head of a 202 under the default headers of the moment."""

    def __init__(self) -> None:
        self._defaults: Headers = []
        self._head = self._start = self._tail = b""

    def write_accepted(self, notification_id: str, defaults: Headers, more: bytes = b"") -> bytes:
        """Return the 202 for a notification stored for the first time, on a connection that is kept.

        `more` are header lines, each behind its line end.
        """
        if defaults is not self._defaults or not self._head:
            self._head, end, body = write(build_accepted(Accepted(_ID)), defaults).partition(_END_OF_HEADERS)
            start, _, self._tail = body.partition(_ID.encode())
            self._start = end + start
            self._defaults = defaults
        return b"".join((self._head, more, self._start, notification_id.encode(), self._tail))


def write(answer: Answer, defaults: Headers, more: bytes = b"", *, is_kept: bool = True) -> bytes:
    """Return an answer's bytes. `is_kept` False tells the client that the connection is closed after it."""
    status = HTTPStatus(answer.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode("ascii")]
    lines += [name + b": " + value for name, value in defaults]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in answer.headers]
    lines.append(b"content-length: %d" % len(answer.body) + more)
    if not is_kept and CLOSE not in defaults:
        lines.append(b"connection: close")
    return b"\r\n".join((*lines, b"", answer.body))
