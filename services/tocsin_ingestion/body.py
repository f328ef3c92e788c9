"""Reading a request's body, bounded in bytes, alone and with all others, and in time, whatever length it declares.

The bound is checked on what has arrived, so that a chunked body without Content-Length stops at the same byte. What a
refused client still sends is read over, by uvicorn or, where the connection ends, by `farewell`: closing at once would
reset the connection before the client could read why.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from tocsin_ingestion.admission import Admission, Room
from tocsin_ingestion.problems import BODY_TIMEOUT, Problem
from tocsin_ingestion.validation import check_size

BODY_TIMEOUT_SECONDS = 30.0
MAX_LENGTH_DIGITS = 19
"""A Content-Length of more digits is written with leading zeros: the bytes that arrive are counted anyway."""


async def read_body(
    request: Request,
    admission: Admission,
    *,
    limit: int,
    timeout_seconds: float = BODY_TIMEOUT_SECONDS,
) -> bytes:
    """Return the whole body.

    Raise Problem: 413 above `limit` bytes, 503 if there is no room for it, 408 if it takes longer than
    `timeout_seconds`.
    """
    declared = request.headers.get("content-length", "0")
    is_number = declared.isdecimal() and len(declared) <= MAX_LENGTH_DIGITS
    check_size(int(declared) if is_number else 0, limit=limit)
    try:
        with Room(admission) as room:
            async with asyncio.timeout(timeout_seconds):
                return await _collect(request, limit, room)
    except TimeoutError as error:
        raise body_timeout(timeout_seconds) from error


def body_timeout(seconds: float = BODY_TIMEOUT_SECONDS) -> Problem:
    """Return the 408 for a body that takes too long."""
    return Problem(BODY_TIMEOUT, f"The body was not complete after {seconds:g} seconds")


async def _collect(request: Request, limit: int, room: Room) -> bytes:
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in request.stream():
        size_bytes += len(chunk)
        check_size(size_bytes, limit=limit)
        room.grow_to(size_bytes)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
