"""The HTTP transport against real servers: what its library does by itself, and must not do here or must."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme
from pycurl import AsyncCurlMulti

from receiver import Answer as ReceiverAnswer
from receiver import Receiver
from tocsin_consumer.channels.base import TemporaryFailure
from tocsin_consumer.channels.epoll_multi import EpollMulti
from tocsin_consumer.channels.transport import Answer, CurlTransport

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(params=[EpollMulti, AsyncCurlMulti], ids=["here", "elsewhere"])
async def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CurlTransport]:
    """A transport as it is on this system, and as it is where there is no epoll."""
    monkeypatch.setattr("tocsin_consumer.channels.transport.Multi", request.param)
    transport = CurlTransport(timeout_seconds=5.0)
    yield transport
    await transport.close()


class Requests:
    """A server of keep-alive connections; it calls `answer` with each request's number, from 1."""

    def __init__(self, answer: Callable[[int, asyncio.StreamWriter], None]) -> None:
        self._answer = answer
        self.heads: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                self.heads.append(head)
                self._answer(len(self.heads), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # that was its last request


def answer_ok(_: int, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


@contextlib.asynccontextmanager
async def listening(requests: Requests, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Yield the server's address; close all connections after the block."""
    async with await asyncio.start_server(requests.serve, "127.0.0.1", 0, ssl=context) as server:
        scheme = "https" if context else "http"
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        for writer in requests.writers:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def post(transport: CurlTransport, url: str, **headers: str) -> Answer:
    return await transport.post(url, body=b"{}", headers=headers)


async def failure_of(transport: CurlTransport, url: str) -> TemporaryFailure:
    with pytest.raises(TemporaryFailure) as caught:
        await post(transport, url)
    return caught.value


async def test_connections_are_kept(transport: CurlTransport) -> None:
    requests = Requests(answer_ok)
    async with listening(requests) as url:
        assert [await post(transport, url) for _ in range(3)] == [Answer(200, None)] * 3
    assert len(requests.writers) == 1


@pytest.mark.parametrize("cut", [lambda writer: writer.transport.abort(), lambda writer: writer.close()])
async def test_a_kept_connection_cut_in_place_of_an_answer_has_nothing_sent_again(
    transport: CurlTransport, cut: Callable[[asyncio.StreamWriter], None]
) -> None:
    def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 2:
            cut(writer)
        else:
            writer.write(OK)

    requests = Requests(answer)
    async with listening(requests) as url:
        await post(transport, url)
        failure = await failure_of(transport, url)
        assert len(requests.heads) == 2
        assert failure.is_uncertain
        assert str(failure) == "the connection was cut in place of an answer"
        assert (await post(transport, url)).status == 200


async def test_a_cancelled_request_leaves_the_next_ones_alone(transport: CurlTransport) -> None:
    is_asked = asyncio.Event()

    def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 1:
            is_asked.set()
        else:
            writer.write(OK)

    async with listening(Requests(answer)) as url:
        hanging = asyncio.create_task(post(transport, url))
        await is_asked.wait()
        hanging.cancel()
        assert [await post(transport, url) for _ in range(2)] == [Answer(200, None)] * 2
        assert hanging.cancelled()


async def test_closing_cancels_what_runs(transport: CurlTransport) -> None:
    is_asked = asyncio.Event()
    async with listening(Requests(lambda _number, _writer: is_asked.set())) as url:
        hanging = asyncio.create_task(post(transport, url))
        await is_asked.wait()
        await transport.close()
        with pytest.raises(asyncio.CancelledError):
            await hanging


async def test_many_at_once_all_get_their_own_answer(transport: CurlTransport) -> None:
    with Receiver(lambda delivery: ReceiverAnswer(200 + int(delivery.headers["number"]))) as receiver:
        answers = await asyncio.gather(*(post(transport, receiver.url, number=f"{each}") for each in range(1, 33)))
    assert [answer.status - 200 for answer in answers] == list(range(1, 33))


@pytest.mark.usefixtures("transport")
async def test_silence_ends_with_the_time_out_each_time() -> None:
    async with listening(Requests(lambda _number, _writer: None)) as url:
        impatient = CurlTransport(timeout_seconds=0.1)
        both = await asyncio.gather(failure_of(impatient, url), failure_of(impatient, url))
        failures = [*both, await failure_of(impatient, url)]
        await impatient.close()
    assert [str(failure) for failure in failures] == ["operation timedout"] * 3
    assert all(failure.is_uncertain for failure in failures)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
def test_under_uvloop_requests_end_by_themselves_or_are_cancelled_at_any_moment(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import uvloop  # noqa: PLC0415 - it is not everywhere

    async def post_in_turn(transport: CurlTransport, url: str, patience: random.Random) -> set[str]:
        ends = set()
        for _ in range(200):
            try:
                async with asyncio.timeout(patience.uniform(0.0, 0.01)):
                    ends.add(str(await failure_of(transport, url)))
            except TimeoutError:
                ends.add("cancelled")
        return ends

    async def run() -> set[str]:
        impatient = CurlTransport(timeout_seconds=0.005)
        async with listening(Requests(lambda _number, _writer: None)) as url:
            ends = await asyncio.gather(*(post_in_turn(impatient, url, random.Random(seed)) for seed in range(10)))
            await impatient.close()
        return set().union(*ends)

    assert uvloop.run(run()) == {"operation timedout", "cancelled"}
    assert capfd.readouterr().err == ""  # where libcurl's library writes what went wrong within a callback


async def test_retry_after_is_that_of_the_last_answer(transport: CurlTransport) -> None:
    def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nretry-after: 9\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After:  17\r\ncontent-length: 0\r\n\r\n")

    async with listening(Requests(answer)) as url:
        assert [await post(transport, url) for _ in range(2)] == [Answer(429, "17")] * 2


async def test_a_header_is_one_line(transport: CurlTransport) -> None:
    requests = Requests(answer_ok)
    async with listening(requests) as url:
        with pytest.raises(ValueError, match="not printable"):
            await post(transport, url, name="a\r\nother: b")
        await post(transport, url, name="grüße")
    [head] = requests.heads
    assert "\r\nname: grüße\r\n".encode() in head
    assert b"expect" not in head.lower()


async def test_a_name_that_cannot_be_resolved_is_certain_and_kept_to_itself(transport: CurlTransport) -> None:
    failure = await failure_of(transport, "http://nowhere.invalid/hook?token=hidden")
    assert not failure.is_uncertain
    assert str(failure) == "couldnt resolve host"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that SSL_CERT_FILE names."""
    authority, path = trustme.CA(), tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return authority


def build_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_who_the_environment_names_is_trusted(transport: CurlTransport, authority: trustme.CA) -> None:
    async with listening(Requests(answer_ok), build_context(authority)) as url:
        assert (await post(transport, url)).status == 200


@pytest.mark.usefixtures("authority")
async def test_nobody_else_is_trusted_and_then_nothing_was_sent(transport: CurlTransport) -> None:
    async with listening(Requests(answer_ok), build_context(trustme.CA())) as url:
        failure = await failure_of(transport, url)
    assert not failure.is_uncertain
    assert "certificate" in str(failure)


async def test_a_proxy_in_the_environment_is_asked(transport: CurlTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        await post(transport, "http://nowhere.invalid/hook")
        [delivery] = await proxy.wait_for(1)
        assert delivery.headers["host"] == "nowhere.invalid"
        monkeypatch.setenv("NO_PROXY", "nowhere.invalid")
        assert "resolve" in str(await failure_of(CurlTransport(timeout_seconds=5.0), "http://nowhere.invalid/hook"))
