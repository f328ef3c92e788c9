"""The hot path as a part of uvicorn: what it takes, what it leaves alone, and how its connections end."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from prometheus_client import REGISTRY

from gates import build_gate, build_key_ring
from ingestion_api import BATCH, GOOD, ONE, run_api
from raw_http import LAST, build_request, converse, read_replies, read_reply
from tocsin_ingestion.admission import Limits
from tocsin_ingestion.body import BODY_TIMEOUT_SECONDS
from tocsin_ingestion.protocol import CLOSE_SECONDS, HEAD_TIMEOUT_SECONDS, KEEP_ALIVE_SECONDS, MAX_HEAD_BYTES

CHUNKED_HEAD = build_request(content_length=None, headers=[("Transfer-Encoding", "chunked")])


async def out_of_bounds(scope: Any, receive: Any, send: Any) -> None:
    del receive
    await send({"type": "http.response.start", "status": 418, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
    assert scope["headers"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (build_request(GOOD), 202),
        (build_request(GOOD, headers=[("Idempotency-Key", "k"), ("traceparent", "x")]), 202),
        (build_request(GOOD, headers=[("Via", "1.1 a"), ("Via", "1.1 b")]), 202),
        (build_request([GOOD, GOOD], target=BATCH), 202),
        (build_request(b"fromID=1&toID=2&message=hi", content_type="application/x-www-form-urlencoded"), 202),
        (build_request(b"{"), 400),
        (build_request({}), 422),
    ],
)
async def test_what_client_libraries_send_never_reaches_the_routes(request_bytes: bytes, status: int) -> None:
    async with run_api(app=out_of_bounds) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        for parts in ([request_bytes], [request_bytes[:40], request_bytes[40:]], [LAST]):
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0.01)  # so that the server reads the parts one by one
            if parts != [LAST]:
                assert (await read_reply(reader)).status == status
        assert (await reader.read()).startswith(b"HTTP/1.1 418")
        writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        build_request(GOOD, target=ONE + "?a=1"),
        build_request(GOOD, method="PUT"),
        build_request(GOOD, headers=[("Content-Type", "x")]),
        build_request(GOOD | {"toID": 3}),
        build_request(GOOD, headers=[("Expect", "100-continue")]),
        build_request(b"0\r\n\r\n", content_length=None, headers=[("Transfer-Encoding", "chunked")]),
    ],
)
async def test_what_is_unusual_is_handed_over_and_the_next_request_is_taken_again(request_bytes: bytes) -> None:
    async with run_api(app=out_of_bounds) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(request_bytes)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 418")
        writer.write(build_request(GOOD))
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 202")
        writer.close()


async def test_a_client_that_hangs_up_before_the_answer_loses_nothing_but_the_answer() -> None:
    before = REGISTRY.get_sample_value("tocsin_ingestion_accepted_total") or 0
    async with run_api() as api:
        api.sink.is_open.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(build_request(GOOD))
        await api.sink.was_asked.wait()
        writer.transport.abort()
        await api.wait_until_left()
        api.sink.is_open.set()
        assert (await api.client.post(ONE, json=GOOD)).status_code == 202
        assert len(api.sink.records) == 2
    assert REGISTRY.get_sample_value("tocsin_ingestion_accepted_total") == before + 2


async def test_a_silent_connection_is_closed_and_one_that_waits_for_an_answer_is_not() -> None:
    async with run_api() as api:
        reader, writer, connection = await api.connect()
        api.sink.is_open.clear()
        writer.write(build_request(GOOD))
        await api.sink.was_asked.wait()
        connection.check_deadline(connection.loop.time() + 11)  # below the 12 s that an answer may take
        api.sink.is_open.set()
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 202")
        connection.check_deadline(connection.loop.time() + KEEP_ALIVE_SECONDS - 1)
        assert not connection.transport.is_closing()
        connection.check_deadline(connection.loop.time() + KEEP_ALIVE_SECONDS + 1)
        assert await reader.read() == b""
        writer.close()


async def test_headers_that_come_too_slowly_are_a_408_and_the_end() -> None:
    async with run_api() as api:
        reader, writer, connection = await api.connect()
        writer.write(b"POST /v1/notifications HTTP/1.1\r\nHost")
        while connection._phase.name != "HEAD":  # noqa: ASYNC110 - a byte's arrival has no event
            await asyncio.sleep(0.01)
        connection.check_deadline(connection.loop.time() + HEAD_TIMEOUT_SECONDS - 1)
        connection.check_deadline(connection.loop.time() + HEAD_TIMEOUT_SECONDS + 1)
        (reply,) = read_replies(await reader.read())
        assert (reply.status, dict(reply.headers)["connection"]) == (408, "close")
        assert reply.json["type"].endswith(":head-timeout")
        writer.close()


async def test_a_body_that_comes_too_slowly_is_a_408_and_its_rest_is_read_over() -> None:
    async with run_api() as api:
        reader, writer, connection = await api.connect()
        request = build_request(GOOD)
        writer.write(request[:-3])
        while connection._phase.name != "BODY":  # noqa: ASYNC110 - a byte's arrival has no event
            await asyncio.sleep(0.01)
        connection.check_deadline(connection.loop.time() + BODY_TIMEOUT_SECONDS + 1)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 408")
        writer.write(request[-3:] + request)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 202")
        assert len(api.sink.records) == 1
        writer.close()


async def test_a_client_that_does_not_read_its_answers_is_not_read_from_either_and_cannot_hold_up_the_end() -> None:
    async with run_api() as api:
        _, writer, connection = await api.connect()
        writer.transport.set_write_buffer_limits(high=0)
        bad = build_request(b"{") * 100
        while not connection.flow.read_paused:
            writer.write(bad)
            try:
                async with asyncio.timeout(0.05):
                    await writer.drain()
            except TimeoutError:
                continue
        assert connection.transport.get_write_buffer_size() < 1_000_000
        connection.timeout_keep_alive_handler()
        connection.check_deadline(connection.loop.time() + CLOSE_SECONDS - 1)
        assert connection in api.server.server_state.connections
        connection.check_deadline(connection.loop.time() + CLOSE_SECONDS + 1)
        await api.wait_until_left()
        writer.transport.abort()


class Recorder(asyncio.Protocol):
    """Stands where uvicorn's WebSocket protocol stands."""

    received = b""

    def __init__(self, **_parts: Any) -> None:
        """Take what uvicorn gives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        type(self).received += data


async def test_a_websocket_upgrade_reaches_uvicorns_websocket_protocol() -> None:
    upgrade = build_request(
        method="GET",
        target="/v1/stream",
        content_type=None,
        content_length=None,
        headers=[("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")],
    )
    async with run_api(ws=Recorder) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(upgrade)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.close()
    assert Recorder.received.startswith(b"GET /v1/stream HTTP/1.1\r\n")
    assert b"sec-websocket-key: x" in Recorder.received


async def test_the_hot_path_works_over_tls() -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with run_api(app=out_of_bounds, ssl_context_factory=lambda *_: server_side) as api:
        reader, writer = await asyncio.open_connection("localhost", api.port, ssl=client_side)
        for _ in range(2):
            writer.write(build_request(GOOD))
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 202")
        writer.close()


async def test_what_is_not_http_does_not_take_the_place_of_the_answer_before_it() -> None:
    async with run_api() as api:
        for garbage in (b"\0\0\0\0 garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
            heard = await converse(api.port, [build_request(GOOD) + garbage])
            (reply,) = read_replies(heard.data)
            assert (reply.status, dict(reply.headers)["connection"], heard.ending) == (202, "close", "closed")


async def test_headers_without_end_are_a_431_and_the_end() -> None:
    async with run_api() as api:
        head = [b"POST /v1/notifications HTTP/1.1\r\n", *[b"x: " + b"y" * 8_000 + b"\r\n"] * 20]
        heard = await converse(api.port, head, pause_seconds=0.01)
        (reply,) = read_replies(heard.data)
        assert (reply.status, heard.ending == "open") == (431, False)


async def test_large_headers_that_end_are_answered() -> None:
    async with run_api() as api:
        headers = [("x", "y" * 8_000)] * 6
        heard = await converse(api.port, [build_request(GOOD, headers=[*headers, ("Connection", "close")])])
        assert [reply.status for reply in read_replies(heard.data)] == [202]


async def test_a_long_body_before_a_head_in_pieces_is_not_taken_for_a_long_head() -> None:
    async with run_api() as api:
        data = build_request(GOOD | {"data": {"a": "x" * 100_000}}) + build_request(GOOD)
        heard = await converse(api.port, [data[:-200], data[-200:-150], data[-150:], LAST], pause_seconds=0.02)
        assert [reply.status for reply in read_replies(heard.data)] == [202, 202, 404]


async def test_a_body_that_was_only_announced_leaves_room_for_those_that_come() -> None:
    async with run_api(limits=Limits(max_bodies_bytes=4_194_304)) as api:
        _, writer, connection = await api.connect()
        connection.data_received(build_request(target=BATCH, content_length="4194304"))
        assert (await api.client.post(ONE, json=GOOD)).status_code == 202
        writer.close()


async def test_a_body_for_which_there_is_no_room_is_a_503_at_once_and_room_comes_back_when_its_client_leaves() -> None:
    async with run_api(limits=Limits(max_bodies_bytes=100)) as api:
        request = build_request(GOOD | {"message": "x" * 30})
        reader, writer, connection = await api.connect()
        writer.write(request[:-5])
        while connection._body_bytes == 0:  # noqa: ASYNC110 - a byte's arrival has no event
            await asyncio.sleep(0.01)
        other_reader, other = await asyncio.open_connection("127.0.0.1", api.port)
        other.write(request[:-5])  # answered although its body is not complete
        refused = await read_reply(other_reader)
        assert (refused.status, dict(refused.headers)["retry-after"]) == (503, "1")
        writer.close()
        assert await reader.read() == b""
        other.write(request[-5:] + request)
        assert (await read_reply(other_reader)).status == 202
        other.close()
        assert len(api.sink.records) == 1


async def test_trailers_are_read_over() -> None:
    async with run_api() as api:
        reader, writer, connection = await api.connect()
        writer.write(CHUNKED_HEAD + b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 1_000)
        while connection._phase.name != "HANDED_OVER":  # noqa: ASYNC110 - a byte's arrival has no event
            await asyncio.sleep(0.01)
        writer.write(b"\r\n")
        assert (await read_reply(reader)).status == 422
        assert len(connection.headers) < 10
        writer.close()


@pytest.mark.parametrize("endless", [b"0\r\nx: ", b"2;x="])
async def test_trailers_and_chunk_extensions_without_end_are_a_431_and_the_end(endless: bytes) -> None:
    async with run_api() as api:
        reader, writer, connection = await api.connect()
        connection.data_received(CHUNKED_HEAD + endless)
        for _ in range(MAX_HEAD_BYTES // 8_000 + 1):
            connection.data_received(b"y" * 8_000)
        (reply,) = read_replies(await reader.read())
        assert (reply.status, dict(reply.headers)["connection"]) == (431, "close")
        writer.close()
        await api.wait_until_left()


async def test_trailers_without_end_behind_an_answer_end_the_connection_without_another() -> None:
    async with run_api() as api:
        reader, writer, connection = await api.connect()
        connection.data_received(CHUNKED_HEAD.replace(b"/v1", b"/v2") + b"0\r\nx: ")
        assert (await read_reply(reader)).status == 404
        for _ in range(MAX_HEAD_BYTES // 8_000 + 1):
            connection.data_received(b"y" * 8_000)
        assert await reader.read() == b""
        writer.close()


async def test_a_long_body_in_chunks_is_not_taken_for_long_trailers() -> None:
    async with run_api() as api:
        reader, writer, connection = await api.connect()
        connection.data_received(CHUNKED_HEAD)
        for part in (b'{"fromID":1,"toID":2,"message":"hi"', *[b" " * 8_000] * 20, b"}"):
            connection.data_received(b"%x\r\n%b\r\n" % (len(part), part))
        connection.data_received(b"0\r\n\r\n")
        assert (await read_reply(reader)).status == 202
        writer.close()


@pytest.mark.parametrize("before", [[GOOD], [GOOD | {"toID": 3}], [GOOD, GOOD | {"toID": 3}]])
async def test_a_broken_body_does_not_take_the_place_of_the_answers_before_it(before: list[Any]) -> None:
    async with run_api() as api:
        api.sink.is_open.clear()
        reader, writer, _ = await api.connect()
        writer.write(b"".join(map(build_request, before)) + CHUNKED_HEAD + b"xyz\r\n")
        await api.sink.was_asked.wait()
        api.sink.is_open.set()
        replies = read_replies(await reader.read())
        assert [reply.status for reply in replies] == [202] * len(before)
        assert dict(replies[-1].headers)["connection"] == "close"
        writer.close()


@pytest.mark.parametrize(
    ("first", "status", "rest"),
    [
        (build_request(b"ab", target="/v2", content_length="5"), 404, b"cde"),
        (build_request(b"ab", target="/v2", content_length="5"), 404, b"c"),
        (build_request(method="GET", target="/v2", content_type=None, content_length=None), 404, b"\r\n"),
        (build_request(b"ab", headers=[("Authorization", "Bearer x")]).replace(b": 2", b": 5"), 401, b"c"),
    ],
)
async def test_what_arrives_behind_an_answer_does_not_keep_its_connection_for_ever(
    first: bytes, status: int, rest: bytes, tmp_path: Path
) -> None:
    async with run_api(gate=build_gate(build_key_ring(tmp_path / "keys"))) as api:
        reader, writer, connection = await api.connect()
        connection.data_received(first)
        assert (await read_reply(reader)).status == status
        connection.data_received(rest)
        connection.check_deadline(connection.loop.time() + KEEP_ALIVE_SECONDS - 1)
        assert not connection.is_closing()
        connection.check_deadline(connection.loop.time() + KEEP_ALIVE_SECONDS + 1)
        assert await reader.read() == b""
        writer.close()
