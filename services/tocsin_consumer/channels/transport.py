"""One HTTP POST: the narrow border to the HTTP library.

libcurl works inside the event loop. A client with a thread of its own (pyreqwest, which Tocsin uses where requests are
few) has a whole delivery cost a quarter to a half more CPU: its thread and the loop wake each other for each answer and
take turns at the interpreter's lock. httpx was measured at twenty times the price of that client, aiohttp at four.
Redirects are never followed: a redirect would carry a signed body to an address nobody configured. Of an answer, the
status and Retry-After are read; its body is somebody else's text.

libcurl by itself sends a request again when a connection that it had kept is cut in place of an answer, although the
receiver may have taken it. It cannot when the body comes from a function that does not rewind, so that is how it comes.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from http.client import parse_headers
from io import BytesIO
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies

import pycurl

from tocsin_consumer.channels.base import TemporaryFailure

if sys.platform == "linux":
    from tocsin_consumer.channels.epoll_multi import EpollMulti as Multi
else:
    from pycurl import AsyncCurlMulti as Multi

USER_AGENT = "tocsin"
MAX_ANSWER_BYTES = 16_384
MAX_IDLE_CONNECTIONS = 256

TAKEN = range(200, 300)

CUT = "the connection was cut in place of an answer"
ERROR_NAMES = {
    value: name.removeprefix("E_").lower().replace("_", " ")
    for name, value in vars(pycurl).items()
    if name.startswith("E_") and not name.startswith("E_MULTI_")
} | {pycurl.E_SEND_FAIL_REWIND: CUT, pycurl.E_GOT_NOTHING: CUT}
"""The library's own names. Its texts have addresses in them, and milliseconds, by which no two are alike."""
TOLD_BY_THE_SYSTEM = frozenset({pycurl.E_COULDNT_CONNECT, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR})
TOLD_BY_TLS = frozenset({pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE})


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


class CurlTransport:
    """HTTP through libcurl, with pooled connections."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._multi = Multi()
        self._multi.setopt(pycurl.M_MAXCONNECTS, MAX_IDLE_CONNECTIONS)
        self._idle: list[_Transfer] = []

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post and return the answer. Raise TemporaryFailure when there is none."""
        transfer = self._idle.pop() if self._idle else _Transfer(self._timeout_seconds, _find_proxy(url))
        transfer.prepare(url, body, headers)
        try:
            await self._multi.perform(transfer.curl)
        except pycurl.error as error:
            self._idle.append(transfer)
            if error.args[0] != pycurl.E_FILESIZE_EXCEEDED:  # then its head was read, and that is what counts
                raise TemporaryFailure(transfer.explain(error), is_uncertain=not transfer.is_unsent) from error
        else:  # and not after a cancellation: libcurl has yet to let go of it then
            self._idle.append(transfer)
        return transfer.read_answer()

    async def close(self) -> None:
        """Close all connections."""
        await self._multi.aclose()


class _Transfer:
    """A handle of libcurl's, used again for one request after the other."""

    def __init__(self, timeout_seconds: float, proxy: str | None) -> None:
        self.curl = pycurl.Curl()
        self._head = BytesIO()
        for option, value in {
            pycurl.POST: 1,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.TIMEOUT_MS: int(timeout_seconds * 1000),
            pycurl.USERAGENT: USER_AGENT,
            pycurl.NOSIGNAL: 1,
            pycurl.MAXFILESIZE: MAX_ANSWER_BYTES,
            pycurl.HEADERFUNCTION: self._head.write,
            pycurl.WRITEFUNCTION: len,  # which says that all of it was taken
        }.items():
            self.curl.setopt(option, value)
        if proxy is not None:
            self.curl.setopt(pycurl.PROXY, proxy)
        _trust_as_the_system_does(self.curl)

    def prepare(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Say what is to be sent. Raise ValueError for a header that is more than a line."""
        lines = [f"{name}: {value}" for name, value in headers.items()]
        if not all(map(str.isprintable, lines)):
            raise ValueError("a header has characters that are not printable")
        self._head.seek(0)
        self._head.truncate()
        self.curl.setopt(pycurl.URL, url)
        self.curl.setopt(pycurl.HTTPHEADER, [*(line.encode() for line in lines), b"Expect:"])
        self.curl.setopt(pycurl.POSTFIELDSIZE, len(body))
        self.curl.setopt(pycurl.READFUNCTION, BytesIO(body).read)

    def read_answer(self) -> Answer:
        """Return what came."""
        status: int = self.curl.getinfo(pycurl.RESPONSE_CODE)
        return Answer(status, None if status in TAKEN else self._read_header("retry-after"))

    def explain(self, error: pycurl.error) -> str:
        """Return what went wrong without the address it was sent to, which may carry a token."""
        code, text = error.args
        name = ERROR_NAMES.get(code, f"libcurl's error {code}")
        if code in TOLD_BY_TLS:
            return f"{name}: {text}"
        number = self.curl.getinfo(pycurl.OS_ERRNO) if code in TOLD_BY_THE_SYSTEM else 0
        return f"{name}: {os.strerror(number)}" if number else name

    @property
    def is_unsent(self) -> bool:
        """Return whether it is certain that no byte of the request left."""
        size_bytes: int = self.curl.getinfo(pycurl.REQUEST_SIZE)  # of what was sent
        return size_bytes == 0

    def _read_header(self, name: str) -> str | None:
        last = self._head.getvalue().removesuffix(b"\r\n\r\n").rpartition(b"\r\n\r\n")[2]  # after any 1xx
        return parse_headers(BytesIO(last.partition(b"\r\n")[2])).get(name)


def _trust_as_the_system_does(curl: pycurl.Curl) -> None:
    """Name the places of this system's certificates, SSL_CERT_FILE and SSL_CERT_DIR first; libcurl knows others'."""
    paths = ssl.get_default_verify_paths()
    for option, place in ((pycurl.CAINFO, paths.cafile), (pycurl.CAPATH, paths.capath)):
        if place:
            curl.setopt(option, place)
        else:
            curl.unsetopt(option)


def _find_proxy(url: str) -> str | None:
    """Return the proxy that the environment names; libcurl itself overlooks HTTP_PROXY, and knows NO_PROXY."""
    return getproxies().get(urlsplit(url).scheme)
