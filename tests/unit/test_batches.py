"""What is asked at once is answered at once, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tocsin_consumer.batches import Batches, TooManyWaiting


class Server:
    """Doubles numbers when it is let to."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.is_open = asyncio.Event()
        self.failure: Exception | None = None

    async def run(self, requests: Sequence[int]) -> list[int]:
        self.calls.append(list(requests))
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        return [2 * number for number in requests]


@pytest.fixture
async def server() -> Server:
    return Server()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_asked_in_one_turn_is_one_call_and_each_gets_its_own_answer(server: Server) -> None:
    server.is_open.set()
    batches = Batches(server.run, max_running=2)
    assert await asyncio.gather(*(batches.ask(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert server.calls == [[0, 1, 2, 3, 4]]


async def test_no_call_is_larger_than_the_bound(server: Server) -> None:
    server.is_open.set()
    batches = Batches(server.run, max_running=1, max_size=2)
    assert await asyncio.gather(*(batches.ask(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert server.calls == [[0, 1], [2, 3], [4]]


async def test_while_calls_run_what_is_asked_waits_and_goes_together(server: Server) -> None:
    batches = Batches(server.run, max_running=1)
    asked = []
    for number in range(4):
        asked.append(asyncio.create_task(batches.ask(number)))
        await turn()
    assert server.calls == [[0]]
    server.is_open.set()
    assert await asyncio.gather(*asked) == [0, 2, 4, 6]
    assert server.calls == [[0], [1, 2, 3]]


async def test_what_follows_on_the_heels_of_a_call_is_collected(server: Server) -> None:
    server.is_open.set()
    batches = Batches(server.run, max_running=2, apart_seconds=0.05)
    began = asyncio.get_running_loop().time()
    assert await batches.ask(0) == 0
    assert asyncio.get_running_loop().time() - began < 0.05, "after a quiet moment nobody waits"
    asked = []
    for number in (1, 2, 3):
        asked.append(asyncio.create_task(batches.ask(number)))
        await turn()
    assert await asyncio.gather(*asked) == [2, 4, 6]
    assert server.calls == [[0], [1, 2, 3]]


async def test_a_call_that_fails_fails_for_those_behind_it_too_and_not_for_those_who_come_later(server: Server) -> None:
    batches = Batches(server.run, max_running=1)
    asked = [asyncio.create_task(batches.ask(0))]
    await turn()
    asked.append(asyncio.create_task(batches.ask(1)))
    await turn()
    server.failure = OSError("away")
    server.is_open.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["away", "away"]
    assert server.calls == [[0]]
    server.failure = None
    assert await batches.ask(3) == 6


async def test_no_more_wait_than_may(server: Server) -> None:
    batches = Batches(server.run, max_running=1, max_size=1, max_waiting=2)
    asked = [asyncio.create_task(batches.ask(0))]
    await turn()
    asked += [asyncio.create_task(batches.ask(number)) for number in (1, 2)]
    await turn()
    with pytest.raises(TooManyWaiting):
        await batches.ask(3)
    server.is_open.set()
    assert await asyncio.gather(*asked) == [0, 2, 4]


async def test_who_no_longer_waits_does_not_disturb_the_others(server: Server) -> None:
    batches = Batches(server.run, max_running=1)
    impatient, patient = (asyncio.create_task(batches.ask(number)) for number in (0, 1))
    await turn()
    impatient.cancel()
    server.is_open.set()
    assert await patient == 2


async def test_closing_lets_what_runs_end_and_cancels_what_waits(server: Server) -> None:
    batches = Batches(server.run, max_running=1)
    running = asyncio.create_task(batches.ask(1))
    await turn()
    waiting = asyncio.create_task(batches.ask(2))
    await turn()
    closing = asyncio.create_task(batches.close())
    await turn()
    server.is_open.set()
    await closing
    assert await running == 2
    with pytest.raises(asyncio.CancelledError):
        await waiting
