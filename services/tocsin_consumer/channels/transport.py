"""One HTTP POST: the narrow border to the HTTP library.

pyreqwest (Rust's reqwest) costs about a twentieth of httpx's CPU per request, but has one maintainer; behind one method
it can be replaced in an afternoon. Redirects are never followed: a redirect would carry a signed body to an address
nobody configured. Of an answer, the status and Retry-After are read; its body is somebody else's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple, Protocol

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    ConnectError,
    DetailedPyreqwestError,
    PoolTimeoutError,
    PyreqwestError,
)
from pyreqwest.response import Response

from tocsin_consumer.channels.base import TemporaryFailure

USER_AGENT = "tocsin"
MAX_ANSWER_BYTES = 16_384


class Answer(NamedTuple):
    """What is read of an HTTP answer."""

    status: int
    retry_after: str | None


class Transport(Protocol):
    """A way to post bytes to an address."""

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post and return the answer. Raise TemporaryFailure when there is none."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class ReqwestTransport:
    """HTTP through pyreqwest, with pooled connections."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self._client: Client = (
            ClientBuilder()
            .timeout(timedelta(seconds=timeout_seconds))
            .follow_redirects(False)
            .user_agent(USER_AGENT)
            .build()
        )

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post and return the answer. Raise TemporaryFailure when there is none."""
        request = (
            self._client.post(url)
            .headers(dict(headers))
            .body_bytes(body)
            .streamed_read_buffer_limit(MAX_ANSWER_BYTES)
            .build_streamed()
        )
        try:
            async with request as response:
                return Answer(response.status, _read_header(response, "retry-after"))
        except (ConnectError, PoolTimeoutError) as error:
            raise TemporaryFailure(explain(error)) from error
        except PyreqwestError as error:  # a timeout among them, whose class does not tell connecting from answering
            raise TemporaryFailure(explain(error), is_uncertain=True) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


def _read_header(response: Response, name: str) -> str | None:
    try:
        return response.get_header(name)
    except ValueError:  # bytes that are no ASCII: the status still counts
        return None


def explain(error: PyreqwestError) -> str:
    """Return an error's causes without the address it was sent to, which may carry a token."""
    causes = (error.details or {}).get("causes") or [] if isinstance(error, DetailedPyreqwestError) else []
    texts = [cause["message"] for cause in causes if "url (" not in cause["message"]]
    return ": ".join([type(error).__name__, *texts])
