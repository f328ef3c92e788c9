"""WebSockets across pods: ingestion processes, a consumer process, a real Kafka, a real Valkey, real clients."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin

from streams import SCREEN, IngestionProcess, listening, read_frame, read_frames, start_ingestion
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.embedded.valkey import EmbeddedValkey
from world import ConsumerProcess, World

# One pipeline for the whole file: its processes take seconds to start. Each test has recipients of its own.
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    world = await World(kafka.bootstrap_servers, tmp_path_factory.mktemp("stream")).create()
    yield world
    await world.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(world: World, valkey: EmbeddedValkey) -> IngestionProcess:
    return await start_ingestion(world, valkey.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def consumer(world: World, valkey: EmbeddedValkey) -> ConsumerProcess:
    return await world.start_process([SCREEN], redis={"url": valkey.url})


async def wait_closed(address: str, **options: Any) -> tuple[int, str]:
    """Connect, and return the code and the reason with which the service closes."""
    async with connect(address, **options) as connection:
        with pytest.raises(ConnectionClosed) as caught:
            async with asyncio.timeout(30):
                await connection.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def read_metrics(pod: IngestionProcess) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pod.port}") as client:
        lines = (await client.get("/metrics")).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.mark.usefixtures("consumer")
async def test_what_is_posted_appears_on_the_screen(pod: IngestionProcess) -> None:
    async with listening(pod, 2) as screen:
        notification_id = await pod.post(toID=2, title="T", message="grüße", data={"order": 7})
        frame = await read_frame(screen)
    assert frame.pop("acceptedAt").endswith("Z")
    assert frame == {
        "id": notification_id,
        "fromID": "1",
        "toID": "2",
        "message": "grüße",
        "title": "T",
        "data": {"order": 7},
        "channel": "screen",
    }


@pytest.mark.usefixtures("consumer")
async def test_every_screen_of_a_person_gets_the_frame_whichever_pod_holds_it_and_nobody_else(
    world: World, valkey: EmbeddedValkey, pod: IngestionProcess
) -> None:
    other = await start_ingestion(world, valkey.url)
    async with (
        listening(pod, 3) as first_tab,
        listening(pod, 3) as second_tab,
        listening(other, 3) as phone,
        listening(other, 4) as somebody_else,
    ):
        notification_id = await pod.post(toID=3)
        frames = [await read_frame(each) for each in (first_tab, second_tab, phone)]
        assert [frame["id"] for frame in frames] == [notification_id] * 3
        await other.post(toID=4, message="yours")
        assert (await read_frame(somebody_else))["message"] == "yours"


async def test_notifications_for_a_screen_arrive_once_and_in_order(
    pod: IngestionProcess, consumer: ConsumerProcess
) -> None:
    async with listening(pod, 5) as screen:
        sent = [await pod.post(toID=5, message=str(number)) for number in range(50)]
        frames = await read_frames(screen, 50)
        ends = [await consumer.wait_end(each) for each in sent]
    assert [frame["id"] for frame in frames] == sent
    assert {end["event"] for end in ends} == {"notification delivered"}


async def test_a_notification_for_nobody_connected_ends_suppressed(
    pod: IngestionProcess, consumer: ConsumerProcess
) -> None:
    end = await consumer.wait_end(await pod.post(toID=6))
    assert (end["event"], end["reason"], end["attempts"]) == ("notification suppressed", "nobody connected", 1)


async def test_whoever_has_left_is_not_connected_any_more(pod: IngestionProcess, consumer: ConsumerProcess) -> None:
    async with listening(pod, 7) as screen:
        await pod.post(toID=7)
        await read_frame(screen)
    end = await consumer.wait_end(await pod.post(toID=7))
    assert end["event"] == "notification suppressed"


async def test_a_client_that_reads_nothing_is_closed_and_delays_nobody(
    world: World, valkey: EmbeddedValkey, consumer: ConsumerProcess
) -> None:
    pod = await start_ingestion(world, valkey.url)
    deaf = await open_deaf_client(pod, user_id=8)
    async with listening(pod, 9) as screen:
        unread = [await pod.post(toID=8, message="x" * 30_000) for _ in range(120)]
        sent = [await pod.post(toID=9) for _ in range(20)]
        async with asyncio.timeout(10):
            frames = await read_frames(screen, 20)
    assert [frame["id"] for frame in frames] == sent
    ends = [await consumer.wait_end(each) for each in unread]
    assert {end["event"] for end in ends} == {"notification delivered", "notification suppressed"}
    assert (await read_metrics(pod))['tocsin_ingestion_streams_closed_total{code="4408"}'] == 1
    deaf.close()


async def open_deaf_client(pod: IngestionProcess, *, user_id: int) -> socket.socket:
    """Connect as a client whose machine has a small buffer and whose program never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    await asyncio.to_thread(client.connect, ("127.0.0.1", pod.port))
    request = (
        f"GET /v1/stream?user={user_id} HTTP/1.1\r\nHost: 127.0.0.1:{pod.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await asyncio.to_thread(client.sendall, request.encode())
    answer = await asyncio.to_thread(client.recv, 12)
    assert answer == b"HTTP/1.1 101"
    return client


async def test_a_killed_pod_is_waited_for_then_nobody_is_connected(
    world: World, valkey: EmbeddedValkey, pod: IngestionProcess, consumer: ConsumerProcess
) -> None:
    doomed = await start_ingestion(world, valkey.url)
    async with listening(doomed, 10), listening(doomed, 11):
        for end in [await consumer.wait_end(await pod.post(toID=user)) for user in (10, 11)]:
            assert end["event"] == "notification delivered"
        await doomed.kill()
    lost, moved = await pod.post(toID=10), await pod.post(toID=11)
    await consumer.wait_for("a send waits for a way to its recipient")
    async with listening(pod, 11) as screen:
        assert (await read_frame(screen))["id"] == moved
    end = await consumer.wait_end(lost)
    assert (end["event"], end["reason"]) == ("notification suppressed", "nobody connected")


async def test_a_pod_that_stops_closes_with_1012_and_loses_nothing_for_whoever_comes_back(
    world: World, valkey: EmbeddedValkey, pod: IngestionProcess, consumer: ConsumerProcess
) -> None:
    leaving = await start_ingestion(world, valkey.url)
    sent: list[str] = []
    received: list[str] = []
    async with listening(leaving, 12) as screen:
        stopping = asyncio.create_task(leaving.terminate())
        with suppress(ConnectionClosed):
            while True:
                sent.append(await pod.post(toID=12))
                received.append((await read_frame(screen))["id"])
        assert screen.close_code == 1012
    sent += [await pod.post(toID=12) for _ in range(3)]
    assert await stopping == 0
    async with listening(pod, 12) as screen:
        while len(received) < len(sent):
            received.append((await read_frame(screen))["id"])
    assert received == sent
    assert {(await consumer.wait_end(each))["event"] for each in sent} == {"notification delivered"}


async def test_a_store_that_forgot_everything_makes_nobody_disappear(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    world = await World(kafka.bootstrap_servers, tmp_path).create()
    with EmbeddedValkey() as store:
        pod = await start_ingestion(world, store.url)
        consumer = await world.start_process([SCREEN], redis={"url": store.url})
        async with listening(pod, 2) as screen:
            await pod.post()
            await read_frame(screen)
            store.stop()  # its data go with it
            store.start()
            notification_id = await pod.post()
            assert (await read_frame(screen))["id"] == notification_id
            assert (await consumer.wait_end(notification_id))["event"] == "notification delivered"
        await world.close()


@pytest.mark.parametrize(
    ("query", "code", "word"),
    [
        ("user=nobody", 4404, "no such user"),
        ("", 4400, "user=ID"),
        ("user=", 4400, "user=ID"),
        ("user=1&user=2", 4400, "user=ID"),
        ("user=%ff", 4400, "user=ID"),
        (f"user={'x' * 129}", 4400, "user=ID"),
    ],
)
async def test_who_cannot_be_served_is_told_why(pod: IngestionProcess, query: str, code: int, word: str) -> None:
    told_code, reason = await wait_closed(pod.build_address(query))
    assert told_code == code
    assert word in reason


async def test_a_request_that_is_no_websocket_is_told_so(pod: IngestionProcess) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pod.port}") as client:
        answer = await client.get("/v1/stream?user=2")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "WebSocket client" in answer.json()["detail"]


async def test_pages_of_other_origins_may_not_listen_unless_listed(world: World, valkey: EmbeddedValkey) -> None:
    app = "https://app.example.org"
    pod = await start_ingestion(world, valkey.url, stream={"allowed_origins": [app]})
    address = pod.build_address("user=2")
    code, _ = await wait_closed(address, origin=Origin("https://evil.example.org"))
    assert code == 4403
    for origin in (app, f"http://127.0.0.1:{pod.port}"):
        async with connect(address, origin=Origin(origin)) as connection:
            await connection.ping()


async def test_connections_are_bounded_per_user_and_per_pod(world: World, valkey: EmbeddedValkey) -> None:
    pod = await start_ingestion(world, valkey.url, stream={"max_connections": 3, "max_connections_per_user": 2})
    async with listening(pod, 2), listening(pod, 2):
        assert (await wait_closed(pod.build_address("user=2")))[0] == 4429
        async with listening(pod, 3):
            assert (await wait_closed(pod.build_address("user=4")))[0] == 1013
        async with listening(pod, 4) as again:
            await again.ping()


@pytest.mark.usefixtures("consumer")
async def test_a_client_that_talks_is_not_heard_and_one_that_shouts_is_closed(pod: IngestionProcess) -> None:
    async with listening(pod, 13) as screen:
        for _ in range(100):
            await screen.send("hello")
        await pod.post(toID=13)
        await read_frame(screen)
        await screen.send("x" * 5_000)
        with pytest.raises(ConnectionClosed) as caught:
            await screen.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009


async def test_without_the_store_clients_are_sent_away_for_later_and_nothing_else_stops(world: World) -> None:
    with EmbeddedValkey() as own:
        pod = await start_ingestion(world, own.url)
        own.stop()
        code, reason = await wait_closed(pod.build_address("user=2"))
        await pod.post()
    assert (code, "later" in reason) == (1013, True)


@pytest.mark.usefixtures("consumer")
async def test_tocsin_listen_prints_a_line_per_frame(pod: IngestionProcess) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tocsin_cli", "listen", "--user", "14", "--count", "2"),
        *("--url", f"http://127.0.0.1:{pod.port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    assert await process.stderr.readline() == b"connected\n"
    sent = [await pod.post(toID=14), await pod.post(toID=14)]
    output, _ = await process.communicate()
    assert [json.loads(line)["id"] for line in output.splitlines()] == sent
    assert process.returncode == 0


async def test_a_client_that_pings_and_does_not_read_is_cut_off(pod: IngestionProcess) -> None:
    deaf = await open_deaf_client(pod, user_id=15)
    deaf.setblocking(False)
    pings = (b"\x89\xfd" + bytes(4) + bytes(125)) * 500_000  # far more than the kernel keeps for the two of them
    with closing(deaf), pytest.raises(ConnectionError):
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(deaf, pings), 60)
