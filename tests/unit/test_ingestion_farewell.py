"""A client that is refused while it still sends can read why, and cannot keep its connection."""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from gates import OTHER_KEY, build_gate, build_key_ring
from ingestion_api import BATCH, GOOD, ONE, Running, run_api
from raw_http import build_request, read_replies, read_reply
from tocsin_ingestion import farewell
from tocsin_ingestion.farewell import Farewell
from tocsin_ingestion.protocol import CLOSE_SECONDS

WRONG_KEY = {"Authorization": f"Bearer {OTHER_KEY}"}
LARGE = b" " * 4_000_000
"""More than the sockets' buffers hold: who sends it notices a reset."""
MEGABYTE = b" " * 1_000_000


@asynccontextmanager
async def run_keyed_api(folder: Path, **options: Any) -> AsyncIterator[Running]:
    async with run_api(gate=build_gate(build_key_ring(folder / "keys")), **options) as api:
        yield api


def post(port: int, target: str, headers: dict[str, str]) -> int:
    """Send as Python's urllib does: all of the body, and then it reads."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("POST", target, LARGE, {"Content-Type": "application/json", "Connection": "close", **headers})
    with client.getresponse() as response:
        response.read()
        return response.status


async def test_who_sends_a_long_body_with_a_wrong_key_and_then_closes_reads_the_401(tmp_path: Path) -> None:
    async with run_keyed_api(tmp_path) as api:
        assert await asyncio.to_thread(post, api.port, BATCH, WRONG_KEY) == 401


async def test_who_sends_too_long_a_body_and_then_closes_reads_the_413() -> None:
    async with run_api() as api:
        assert await asyncio.to_thread(post, api.port, ONE, {}) == 413


async def test_headers_that_are_refused_for_their_size_may_go_on_for_a_while() -> None:
    async with run_api() as api:
        reader, writer, _ = await api.connect()
        writer.write(b"GET / HTTP/1.1\r\nx: " + MEGABYTE)
        (reply,) = read_replies(await reader.read())
        assert reply.status == 431
        for _ in range(5):
            writer.write(MEGABYTE)
            await writer.drain()
        writer.close()
        await api.wait_until_left()


async def test_a_server_that_shuts_down_lets_a_client_that_was_refused_read_why(tmp_path: Path) -> None:
    async with run_keyed_api(tmp_path) as api:
        reader, writer, connection = await api.connect()
        writer.write(build_request(GOOD, headers=[*WRONG_KEY.items()], content_length="9000000"))
        assert (await read_reply(reader)).status == 401
        connection.shutdown()
        assert await reader.read() == b""
        for _ in range(5):
            writer.write(MEGABYTE)
            await writer.drain()
        writer.close()
        await api.wait_until_left()


async def test_the_socket_closes_at_once_when_nothing_more_comes(tmp_path: Path) -> None:
    async with run_keyed_api(tmp_path) as api:
        reader, writer, connection = await api.connect()
        connection.data_received(build_request(GOOD, headers=[*WRONG_KEY.items(), ("Connection", "close")]))
        assert connection.transport.is_closing()
        assert [reply.status for reply in read_replies(await reader.read())] == [401]
        await api.wait_until_left()
        writer.close()


async def test_a_client_that_neither_sends_nor_closes_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "LINGER_SECONDS", 0.01)
    async with run_keyed_api(tmp_path) as api:
        reader, writer, _ = await api.connect()
        headers = [*WRONG_KEY.items(), ("Connection", "close")]
        writer.write(build_request(GOOD, headers=headers, content_length="9000"))
        assert [reply.status for reply in read_replies(await reader.read())] == [401]
        await api.wait_until_left()
        writer.close()


async def test_a_client_that_sends_for_ever_is_cut_off(tmp_path: Path) -> None:
    async with run_keyed_api(tmp_path) as api:
        reader, writer, connection = await api.connect()
        headers = [*WRONG_KEY.items(), ("Connection", "close")]
        writer.write(build_request(GOOD, headers=headers, content_length="9000"))
        assert [reply.status for reply in read_replies(await reader.read())] == [401]
        connection.check_deadline(connection.loop.time() + CLOSE_SECONDS - 1)
        assert not connection.transport.is_closing()
        connection.check_deadline(connection.loop.time() + CLOSE_SECONDS + 1)
        await api.wait_until_left()
        writer.close()


async def test_over_tls_the_answer_says_that_the_connection_ends_and_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "LINGER_SECONDS", 0.01)
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with run_keyed_api(tmp_path, ssl_context_factory=lambda *_: server_side) as api:
        reader, writer = await asyncio.open_connection("localhost", api.port, ssl=client_side)
        headers = [*WRONG_KEY.items(), ("Connection", "close")]
        writer.write(build_request(GOOD, headers=headers, content_length="9000"))
        (reply,) = read_replies(await reader.read())
        assert (reply.status, dict(reply.headers)["connection"]) == (401, "close")
        writer.close()


class Silent(asyncio.Transport):
    """Goes nowhere."""

    is_closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True


async def test_a_client_that_goes_on_sending_is_waited_for() -> None:
    transport = Silent()
    goodbye = Farewell(asyncio.Protocol(), transport, asyncio.get_running_loop())
    goodbye.begin()
    assert transport.protocol is goodbye
    for _ in range(3):
        goodbye.data_received(b"x")
        goodbye._look()
        assert not transport.is_closed
    goodbye._look()
    assert transport.is_closed
    goodbye.connection_lost(None)
