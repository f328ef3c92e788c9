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
from pyreqwest.exceptions import PoolTimeoutError, PyreqwestError
from pyreqwest.response import Response

from tocsin_consumer.channels.base import TemporaryFailure
from tocsin_core.http_errors import explain, read_causes

USER_AGENT = "tocsin"
MAX_ANSWER_BYTES = 16_384
NOT_CONNECTED = "client error (Connect)"
"""The cause that reqwest names while there is no connection yet."""


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
        except PyreqwestError as error:
            raise TemporaryFailure(explain(error), is_uncertain=not is_unsent(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


def _read_header(response: Response, name: str) -> str | None:
    try:
        return response.get_header(name)
    except ValueError:  # bytes that are no ASCII: the status still counts
        return None


def is_unsent(error: PyreqwestError) -> bool:
    """Return whether it is certain that no byte of the request left.

    The class does not tell: a connection that is cut while the answer is awaited is a ConnectError too, and a timeout
    is a ConnectTimeoutError wherever it strikes. What it was doing stands among the causes.
    """
    return isinstance(error, PoolTimeoutError) or NOT_CONNECTED in read_causes(error)
