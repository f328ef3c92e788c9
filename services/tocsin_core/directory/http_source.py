"""Profiles behind HTTP: 200 is a profile, 404 no such user, and everything else no answer.

A 200 that holds no JSON object is no answer either: it is what a proxy, a captive portal or a login page says, and to
take it for one user's broken profile would bury that user's notifications. Redirects are not followed: they would carry
the token to an address nobody configured.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from urllib.parse import quote

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import Response

from tocsin_core.directory.source import Answer
from tocsin_core.http_errors import explain
from tocsin_core.settings import HTTPUsersSettings
from tocsin_core.users import DirectoryError, DirectoryUnavailable, ProfileInvalid, parse_profile

MAX_PROFILE_BYTES = 65_536
USER_AGENT = "tocsin"
IDLE_SECONDS = 30.0
"""A connection that nobody used for so long is closed by us: many servers do it after 60 s, in the middle of a try."""
DOT_SEGMENTS = frozenset({".", ".."})
"""Escaped or not, these are steps within an address, not names in it: such an id would ask about something else."""


class HTTPProfiles:
    """Asks one address per user, over pooled connections."""

    name = "users.http"
    max_ids = 1

    def __init__(self, settings: HTTPUsersSettings) -> None:
        self.timeout_seconds = settings.timeout_seconds
        self.max_questions = settings.max_connections
        self._url = settings.url
        self._client = _build_client(settings)

    async def ask(self, user_ids: Sequence[str]) -> Sequence[Answer]:
        """Return an answer per user, in order. Raise DirectoryUnavailable for the first that gets none."""
        return [await self._ask_about(user_id) for user_id in user_ids]

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def _ask_about(self, user_id: str) -> Answer:
        if user_id in DOT_SEGMENTS:
            return None
        request = self._client.get(build_url(self._url, user_id)).streamed_read_buffer_limit(MAX_PROFILE_BYTES)
        try:
            async with request.build_streamed() as response:
                return read_answer(user_id, response.status, await _read_body(response))
        except PyreqwestError as error:
            raise DirectoryUnavailable(f"{self.name}: {explain(error)}") from error


def build_url(template: str, user_id: str) -> str:
    """Return the address of a user's profile."""
    return template.replace("{id}", quote(user_id, safe=""))


def read_answer(user_id: str, status: int, body: bytes | None) -> Answer:
    """Return what an answer says of the user; `body` None is one that is too long.

    Raise DirectoryUnavailable if it says nothing.
    """
    if status == HTTPStatus.NOT_FOUND:
        return None
    if status != HTTPStatus.OK:
        raise DirectoryUnavailable(f"users.http: HTTP {status}, which is neither 200 nor 404")
    if body is None:
        raise DirectoryUnavailable(f"users.http: HTTP 200 with more than {MAX_PROFILE_BYTES} bytes")
    try:
        return parse_profile(user_id, body)
    except ProfileInvalid as invalid:
        return invalid
    except DirectoryError as error:
        raise DirectoryUnavailable(f"users.http: HTTP 200 without a profile: {error}") from error


async def _read_body(response: Response) -> bytes | None:
    if response.status != HTTPStatus.OK:
        return b""
    body = b""
    while (part := await response.body_reader.read(MAX_PROFILE_BYTES)) is not None:
        body += bytes(part)
        if len(body) > MAX_PROFILE_BYTES:
            return None
    return body


def _build_client(settings: HTTPUsersSettings) -> Client:
    token = settings.token.get_secret_value()
    timeout = timedelta(seconds=settings.timeout_seconds)
    return (
        ClientBuilder()
        .timeout(timeout)
        .pool_timeout(timeout)
        .pool_idle_timeout(timedelta(seconds=IDLE_SECONDS))
        .max_connections(settings.max_connections)
        .follow_redirects(False)
        .user_agent(USER_AGENT)
        .default_headers({"accept": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {}))
        .build()
    )
