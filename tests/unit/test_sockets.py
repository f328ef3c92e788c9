"""Connections and their buffers, with the sending end under the test's control."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from tocsin_core.hub import Taken
from tocsin_ingestion import sockets
from tocsin_ingestion.sockets import BUFFER_BYTES, GONE, RESTART, SLOW, Connection, Sockets


class Peer:
    """The other end of a connection: takes frames while it is open."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.failure: Exception | None = None

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        self.received.append(message["text"])


class Answers:
    """What became of the offers."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self._came: asyncio.Queue[Taken] = asyncio.Queue()

    def __call__(self, taken: Taken) -> None:
        self.taken.append(taken)
        self._came.put_nowait(taken)

    async def wait(self, count: int = 1) -> list[Taken]:
        async with asyncio.timeout(10):
            return [await self._came.get() for _ in range(count)]


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def answers() -> Answers:
    return Answers()


def hold(*connections: Connection) -> Sockets:
    held = Sockets()
    for connection in connections:
        held.add(connection)
    return held


async def test_an_offer_is_taken_once_a_socket_has_it(peer: Peer, answers: Answers) -> None:
    connection = Connection("2")
    writing = asyncio.create_task(connection.write(peer.send))
    hold(connection).offer("2", b"frame", answers)
    assert await answers.wait() == [Taken.TAKEN]
    assert peer.received == ["frame"]
    connection.close(RESTART)
    assert await writing == RESTART


async def test_frames_keep_their_order(peer: Peer, answers: Answers) -> None:
    connection = Connection("2")
    held = hold(connection)
    for number in range(10):
        held.offer("2", str(number).encode(), answers)
    writing = asyncio.create_task(connection.write(peer.send))
    assert await answers.wait(10) == [Taken.TAKEN] * 10
    assert peer.received == [str(number) for number in range(10)]
    connection.close(GONE)
    await writing


def test_nobody_here_is_absent_and_perhaps_on_the_way_while_the_pod_drains(answers: Answers) -> None:
    held = Sockets()
    held.offer("2", b"frame", answers)
    held.is_leaving = True
    held.offer("2", b"frame", answers)
    assert answers.taken == [Taken.ABSENT, Taken.LEAVING]


async def test_one_socket_behind_does_not_delay_the_answer_of_another(peer: Peer, answers: Answers) -> None:
    behind, fine = Connection("2"), Connection("2")
    deaf = Peer()
    deaf.is_open.clear()
    tasks = [asyncio.create_task(behind.write(deaf.send)), asyncio.create_task(fine.write(peer.send))]
    hold(behind, fine).offer("2", b"frame", answers)
    assert await answers.wait() == [Taken.TAKEN]
    for connection in (behind, fine):
        connection.close(GONE)
    deaf.is_open.set()
    await asyncio.gather(*tasks)
    assert answers.taken == [Taken.TAKEN]


async def test_a_socket_that_takes_nothing_is_said_to_stall_and_keeps_the_frame(
    peer: Peer, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "STALLED_AFTER_SECONDS", 0.0)
    peer.is_open.clear()
    connection = Connection("2")
    writing = asyncio.create_task(connection.write(peer.send))
    held = hold(connection)
    held.offer("2", b"frame", answers)
    assert await answers.wait() == [Taken.STALLED]
    again = Answers()
    held.offer("2", b"frame", again)  # the consumer's next attempt
    peer.is_open.set()
    await again.wait()
    assert peer.received == ["frame"]
    connection.close(GONE)
    await writing


async def test_a_socket_that_takes_nothing_for_too_long_is_closed_as_slow(
    peer: Peer, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "STALL_SECONDS", 0.0)
    peer.is_open.clear()
    connection = Connection("2")
    hold(connection).offer("2", b"frame", answers)
    assert await connection.write(peer.send) == SLOW
    assert answers.taken == [Taken.STALLED]


async def test_a_full_buffer_closes_the_connection(peer: Peer, answers: Answers) -> None:
    connection = Connection("2")
    held = hold(connection)
    held.offer("2", b"a" * BUFFER_BYTES, answers)
    held.offer("2", b"b", answers)
    assert await connection.write(peer.send) == SLOW
    assert answers.taken == [Taken.STALLED, Taken.STALLED]
    assert peer.received == []


async def test_a_client_that_left_loses_what_waited(peer: Peer, answers: Answers) -> None:
    peer.failure = ConnectionResetError()
    connection = Connection("2")
    hold(connection).offer("2", b"frame", answers)
    assert await connection.write(peer.send) == GONE
    assert answers.taken == [Taken.STALLED]


def test_a_user_is_held_as_long_as_one_connection_is_open() -> None:
    first, second = Connection("2"), Connection("2")
    held = hold(first, second)
    assert (held.count, held.count_of("2")) == (2, 2)
    held.remove(first)
    assert held.holds("2")
    held.remove(second)
    assert not held.holds("2")
    assert (held.count, list(held.users), held.connections) == (0, [], [])
