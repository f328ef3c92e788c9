"""One notification over HTTP to an ingestion service, and what it answered.

Used by `tocsin send`, `tocsin dev` and the demo. With `retry_seconds` each notification gets an Idempotency-Key, and a
refusal that may pass (503 with Retry-After, a connection that broke) is repeated; what stands then is the caller's.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import NamedTuple, Self
from uuid import uuid4

import msgspec
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import TransportError
from pyreqwest.response import Response

from tocsin_cli.credentials import build_headers

PATH = "/v1/notifications"
ACCEPTED = 202
NO_ANSWER = 0
REPEATABLE = (NO_ANSWER, 409, 429, 503, 504)
"""Under an Idempotency-Key all of these can be repeated: the id stays the same whatever became of the first try."""
FIRST_RETRY_SECONDS = 0.5
TIMEOUT_SECONDS = 60.0
LET_GO_SECONDS = 0.05
"""pyreqwest's own thread still needs the interpreter when a client is dropped; a process that ends in that moment is
aborted by it, which befell one `tocsin send` in five."""
LONGEST_RETRY_AFTER_SECONDS = 5.0


class Answer(NamedTuple):
    """What became of one request: the id if it was accepted, else the reason in the service's own words."""

    status: int
    notification_id: str | None
    reason: str = ""

    @property
    def is_accepted(self) -> bool:
        """Return whether the service answered 202 with an id."""
        return self.notification_id is not None


class _Accepted(msgspec.Struct):
    id: str


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""


class Poster:
    """A pool of connections to one ingestion service."""

    def __init__(self, url: str, *, token: str = "", retry_seconds: float = 0.0, connections: int = 256) -> None:
        self._headers = build_headers(token)
        self._url = url.rstrip("/").removesuffix(PATH) + PATH
        self._retry_seconds = retry_seconds
        self._builder = (
            ClientBuilder()
            .timeout(timedelta(seconds=TIMEOUT_SECONDS))
            .max_connections(connections)
            .http1_only()
            .no_proxy()
        )
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        self._client = self._builder.build()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None
            await asyncio.sleep(LET_GO_SECONDS)

    async def post(self, body: bytes) -> Answer:
        """Post one JSON body and return the last answer; repeat for up to `retry_seconds` where that can help."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._retry_seconds
        key = str(uuid4()) if self._retry_seconds else ""
        while True:
            answer, wait_seconds = await self._post_once(body, key)
            if answer.status not in REPEATABLE or loop.time() + wait_seconds > until:
                return answer
            await asyncio.sleep(wait_seconds)

    async def _post_once(self, body: bytes, key: str) -> tuple[Answer, float]:
        assert self._client is not None, "use `async with`"  # noqa: S101 - a programming error
        request = self._client.post(self._url).header("content-type", "application/json").body_bytes(body)
        for name, value in self._headers.items():
            request = request.header(name, value)
        if key:
            request = request.header("idempotency-key", key)
        try:
            response = await request.build().send()
            return read_answer(response.status, bytes(await response.bytes())), _retry_after_seconds(response)
        except TransportError as error:
            return Answer(NO_ANSWER, None, f"no answer from {self._url}: {error.message}"), FIRST_RETRY_SECONDS


def read_answer(status: int, content: bytes) -> Answer:
    """Return what a status and a body mean; anything but 202 with an id is a refusal with its reason."""
    try:
        if status == ACCEPTED:
            return Answer(status, msgspec.json.decode(content, type=_Accepted).id)
        problem = msgspec.json.decode(content, type=_Problem)
    except msgspec.DecodeError:
        return Answer(status, None, f"answered {status}: {content[:200].decode(errors='replace')}")
    return Answer(status, None, problem.detail or problem.title or f"answered {status}")


def _retry_after_seconds(response: Response) -> float:
    try:
        wanted = float(response.get_header("retry-after") or FIRST_RETRY_SECONDS)
    except ValueError:  # a date, which no Tocsin service sends
        wanted = FIRST_RETRY_SECONDS
    return min(max(wanted, FIRST_RETRY_SECONDS), LONGEST_RETRY_AFTER_SECONDS)
