"""One bounded GET, in a thread of its own: how an issuer's keys are read.

The standard library does it once in five minutes; a client with a pool would be one more thing to start and to end.
Redirects are refused rather than followed: the address decides whose signatures are believed, so it is the one written
in the resource or none.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any

from tocsin_core.errors import TocsinError

TIMEOUT_SECONDS = 3.0
"""A process that is told to stop waits for a fetch that is under way."""
MAX_BYTES = 1_048_576
_CHUNK_BYTES = 65_536


class FetchError(TocsinError):
    """The document could not be had; the text says why."""


class _RefuseRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        """Follow none: urllib then treats the answer as an error."""


_opener = urllib.request.build_opener(_RefuseRedirects)


def fetch(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> bytes:
    """Return what stands at `url`. Raise FetchError; may block for twice `timeout_seconds`."""
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310 - settings allow HTTP only
    try:
        with _opener.open(request, timeout=timeout_seconds) as response:
            return _read(response, timeout_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(_explain(error.code, error.headers.get("location"))) from error
    except urllib.error.URLError as error:
        raise FetchError(f"no answer: {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"no answer: {error}") from error


def _read(response: HTTPResponse, timeout_seconds: float) -> bytes:
    if response.status != HTTPStatus.OK:
        raise FetchError(f"answered {response.status}")
    until = time.monotonic() + timeout_seconds
    content = b""
    while chunk := response.read1(_CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_BYTES:
            raise FetchError(f"larger than {MAX_BYTES} bytes")
        if time.monotonic() > until:  # the socket's own timeout begins anew with every byte
            raise FetchError(f"not complete after {timeout_seconds:g} seconds")
    return content


def _explain(status: int, location: str | None) -> str:
    return f"answered {status}: write the address it redirects to, {location}" if location else f"answered {status}"
