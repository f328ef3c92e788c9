"""Bytes that are almost HTTP: requests of the corpus, damaged, glued together and cut, from a seed.

A seeded generator rather than hypothesis: each case costs two connections, shrinking would cost thousands, and a long
run must be able to go on for a given time. A case is found again by its number.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

from ingestion_corpus import CORPUS
from raw_http import LAST

CASES = 150
MAX_SEED_BYTES = 3_000
FILLER = b"\r\n" * 2_000
"""Ends a body whose declared length the damage made a little longer; between requests it means nothing."""
_SEEDS = [data for data in CORPUS.values() if len(data) <= MAX_SEED_BYTES]
_WORDS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"0", b"-1", b"4", b"1e9", b"\xff", b"\xc3\xa9", b'"', b"\\",
    b"{", b"}", b"[", b"]", b"%", b"?", b"HTTP/1.1", b"HTTP/1.0", b"GET ", b"POST ", b"PUT ", b"Content-Length: 7\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"/v1/notifications",
    b":batch", b"Content-Type: application/json\r\n", b"Idempotency-Key: k\r\n", b"null", b"1", b"true",
]  # fmt: skip


class Case:
    """One connection's worth: what is sent, in which pieces."""

    def __init__(self, number: int) -> None:
        dice = random.Random(number)
        data = b"".join(damage(dice, dice.choice(_SEEDS)) for _ in range(dice.choice((1, 1, 1, 2, 3))))
        data += dice.choice((b"", FILLER))
        self.number = number
        self.data = data + LAST
        cuts = sorted(dice.randrange(len(self.data)) for _ in range(dice.choice((0, 0, 1, 2, 8))))
        edges = [0, *cuts, len(self.data)]
        self.parts = [self.data[start:end] for start, end in pairwise(edges) if start < end]


def damage(dice: random.Random, data: bytes) -> bytes:
    """Return the bytes with nothing to a few things wrong."""
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        data = dice.choice(_DAMAGES)(dice, data)
    return data


def choose_cases(seconds: float) -> Iterator[Case]:
    """Return the same few cases each time, or other ones for so many seconds."""
    if not seconds:
        yield from islice(build_cases(), CASES)
        return
    deadline = time.monotonic() + seconds
    for case in build_cases(time.time_ns()):
        if time.monotonic() > deadline:
            return
        yield case


def build_cases(first: int = 0) -> Iterator[Case]:
    """Return cases without end."""
    while True:
        yield Case(first)
        first += 1


def _insert(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(_WORDS) + data[at:]


def _delete(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + data[at + dice.randrange(1, 9) :]


def _flip(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]


def _repeat_line(dice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    at = dice.randrange(len(lines))
    return b"\r\n".join([*lines[: at + 1], *lines[at:]])


def _drop_line(dice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    del lines[dice.randrange(len(lines))]
    return b"\r\n".join(lines)


def _cut_off(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


_DAMAGES: list[Callable[[random.Random, bytes], bytes]] = [
    _insert,
    _delete,
    _flip,
    _repeat_line,
    _drop_line,
    _cut_off,
]
