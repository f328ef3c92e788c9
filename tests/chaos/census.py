"""How much every container of a consumer holds: what grows for ever is found without knowing where to look.

From the worker on, all objects of Tocsin's own classes are visited, and the lengths of their lists, dicts, sets and
deques are summed by `Class.attribute`. A list of names to watch was refused: the leak nobody thought of is not on it.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

PACKAGE = "tocsin_"
CONTAINERS = (dict, list, set, frozenset, deque, tuple)


class Census(msgspec.Struct, frozen=True):
    """One line of the file."""

    at_seconds: float
    rss_bytes: int
    objects: int
    sizes: dict[str, int]


def count(root: object) -> dict[str, int]:
    """Return how many entries the containers hold that are reachable from `root`, by class and attribute."""
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        path, thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, CONTAINERS):
            sizes[path] += len(thing)
            waiting += [(f"{path}[]", each) for each in _members(thing) if _is_worth_a_visit(each)]
        else:
            found = ((f"{type(thing).__name__}.{name}", value) for name, value in _attributes(thing))
            waiting += [(name, value) for name, value in found if _is_worth_a_visit(value)]
    return dict(sizes)


def read_rss_bytes() -> int:
    """Return this process's resident memory (Linux)."""
    fields = Path("/proc/self/status").read_text(encoding="ascii").split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


async def keep_counting(root: object, path: Path, *, every_seconds: float) -> None:
    """Append a census to a file every so many seconds, until cancelled."""
    with path.open("ab", buffering=0) as file:
        while True:
            await asyncio.sleep(every_seconds)
            gc.collect()
            census = Census(time.monotonic(), read_rss_bytes(), len(gc.get_objects()), count(root))
            file.write(msgspec.json.encode(census) + b"\n")


def read_censuses(path: Path) -> list[Census]:
    """Return the whole lines of a file."""
    decoder = msgspec.json.Decoder(Census)
    return [decoder.decode(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _members(container: Any) -> Iterable[object]:
    return [*container.keys(), *container.values()] if isinstance(container, dict) else list(container)


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    yield from vars(thing).items() if hasattr(thing, "__dict__") else ()
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, name):
                yield name, getattr(thing, name)


def _is_worth_a_visit(thing: object) -> bool:
    return isinstance(thing, CONTAINERS) or type(thing).__module__.startswith(PACKAGE)
