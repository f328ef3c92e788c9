"""Whether the users of notifications exist: no is a 404, "nobody can tell" a 503, and neither reaches Kafka.

All users are asked for at once, and each once: a directory behind a network answers a batch in few questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tocsin_core.users import DirectoryUnavailable, UserDirectory
from tocsin_ingestion.draft import Draft
from tocsin_ingestion.problems import DIRECTORY_UNAVAILABLE, UNKNOWN_USER, FieldError, Problem

UNTOLD = "Whether these users exist cannot be told at present. Nothing was stored. Repeat later."

Answer = DirectoryUnavailable | bool
"""Whether there is such a user, or why nobody can tell."""


async def find_refusals(directory: UserDirectory, drafts: Mapping[int, Draft]) -> dict[int, Problem]:
    """Return why each draft is refused whose users are not both known, by its number."""
    user_ids = {user_id for draft in drafts.values() for _, user_id in _name_users(draft)}
    answers = await asyncio.gather(*(_look_up(directory, user_id) for user_id in user_ids))
    known = dict(zip(user_ids, answers, strict=True))
    found = {index: _decide(draft, known) for index, draft in drafts.items()}
    return {index: refusal for index, refusal in found.items() if refusal is not None}


async def _look_up(directory: UserDirectory, user_id: str) -> Answer:
    try:
        return await directory.find(user_id) is not None
    except DirectoryUnavailable as unavailable:
        return unavailable


def _decide(draft: Draft, known: Mapping[str, Answer]) -> Problem | None:
    for field, user_id in _name_users(draft):
        answer = known[user_id]
        if isinstance(answer, DirectoryUnavailable):
            problem = Problem(DIRECTORY_UNAVAILABLE, UNTOLD)
            problem.__cause__ = answer
            return problem
        if not answer:
            error = FieldError(field, f"no user has the id {user_id!r}")
            return Problem(UNKNOWN_USER, f"{field}: {error.detail}", errors=(error,))
    return None


def _name_users(draft: Draft) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("fromID", str(draft.from_id)), ("toID", str(draft.to_id))
