"""Gates for tests: keys in a folder, and limits whose clock stands still until it is moved."""

from __future__ import annotations

from pathlib import Path

from tocsin_core.api_keys import hash_key, make_key
from tocsin_ingestion.auth.gate import Checker, Gate
from tocsin_ingestion.auth.key_ring import KeyRing
from tocsin_ingestion.auth.limits import Limiter

GOOD_KEY = "tcs_0KkD7hXvQmWc3ZtP9sYbRf1LgN5aEuJ8oVi2TxH6dwM"
OTHER_KEY = make_key()


def write_keys(folder: Path, **keys: str) -> Path:
    """Write what a mounted Secret looks like: a file per key, with its hash."""
    folder.mkdir(exist_ok=True)
    for name, key in keys.items():
        (folder / name).write_text(hash_key(key) + "\n")
    return folder


def build_key_ring(folder: Path, **keys: str) -> KeyRing:
    ring = KeyRing(write_keys(folder, **(keys or {"billing": GOOD_KEY})))
    ring.reload()
    return ring


class Clock:
    """Time that moves when it is told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def build_gate(checker: Checker, *, burst: int | None = None, clock: Clock | None = None) -> Gate:
    """Return a gate; with a burst, one notification comes back per second."""
    limiter = None if burst is None else Limiter(1.0, burst, clock=clock or Clock())
    return Gate(checker, limiter)
