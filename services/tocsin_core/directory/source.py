"""What stands behind a directory: the one seam between asking well and whom is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tocsin_core.users import Profile, ProfileInvalid

Answer = Profile | ProfileInvalid | None
"""A profile, something that is none, or no such user."""


class ProfileSource(Protocol):
    """Somebody who can be asked about users."""

    name: str
    """The setting that names it, for messages."""
    max_ids: int
    """About how many users one question may be."""
    max_questions: int
    """How many questions may be open at once."""
    timeout_seconds: float

    async def ask(self, user_ids: Sequence[str]) -> Sequence[Answer]:
        """Return an answer per user, in order. Raise DirectoryUnavailable if it cannot be had."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
