"""What can be wrong with a file, said the way its author can act on: which field, what is wrong, what to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tocsin_core.errors import TocsinError

Step = str | int
Path = tuple[Step, ...]


class ResourceError(TocsinError):
    """A file that does not hold a usable pipeline; one line per problem."""


class Problem(NamedTuple):
    """One mistake: where it is and what to do about it."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{format_path(self.path)}: {self.text}"


def format_path(path: Sequence[Step]) -> str:
    """Return a path as Kubernetes writes it: `spec.consumer.channels[0].name`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "(top level)"
