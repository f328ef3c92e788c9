"""Reading pods' metrics pages, from a real server on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tocsin_core.health import HealthServer
from tocsin_core.settings import HealthSettings
from tocsin_operator.pods import PageReader
from tocsin_operator.scaling.counters import sum_samples

HOST = "127.0.0.1"


@pytest.fixture
async def server() -> AsyncIterator[HealthServer]:
    """The services' own health server."""
    health = HealthServer(HealthSettings(host=HOST, port=0), check_ready=lambda: "", check_alive=lambda: "")
    await health.start()
    yield health
    await health.stop()


async def read(port: int) -> str | None:
    reader = PageReader(port=port)
    try:
        return await reader.read(HOST)
    finally:
        await reader.close()


async def test_a_service_s_own_page_is_read(server: HealthServer) -> None:
    page = await read(server.port)
    assert page is not None
    assert sum_samples(page, frozenset({"process_cpu_seconds_total"}))["process_cpu_seconds_total"] > 0


async def test_a_port_where_nobody_listens_is_no_page() -> None:
    with_nobody = await asyncio.start_server(lambda *_: None, HOST, 0)
    port = with_nobody.sockets[0].getsockname()[1]
    with_nobody.close()
    await with_nobody.wait_closed()
    assert await read(port) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n",
    ],
)
async def test_an_answer_that_is_no_page_is_none(answer: bytes) -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(respond, HOST, 0) as listener:
        assert await read(listener.sockets[0].getsockname()[1]) is None


async def test_a_page_without_an_end_is_cut() -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000)
        writer.close()

    async with await asyncio.start_server(respond, HOST, 0) as listener:
        page = await read(listener.sockets[0].getsockname()[1])
    assert page is not None
    assert 0 < len(page) <= 1_000_000
