"""What takes too long ends, with one timer for all of it."""

from __future__ import annotations

import asyncio

import pytest

from tocsin_consumer.deadlines import Deadlines


async def take(deadlines: Deadlines, seconds: float) -> str:
    with deadlines.begin():
        await asyncio.sleep(seconds)
    return "done"


async def test_what_is_fast_enough_ends_by_itself() -> None:
    assert await take(Deadlines(5.0), 0.0) == "done"


async def test_what_takes_too_long_ends_in_a_timeout_no_sooner_and_not_much_later() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await take(Deadlines(0.05), 5.0)
    assert 0.045 <= loop.time() - began < 2.0
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "whoever catches the timeout goes on uncancelled"


async def test_each_of_many_has_its_whole_time_whatever_ended_before() -> None:
    deadlines = Deadlines(0.1)
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(take(deadlines, 0.0))
    late = asyncio.create_task(take(deadlines, 5.0))
    assert await first == "done"
    await asyncio.sleep(0.05)
    began = loop.time()
    later = asyncio.create_task(take(deadlines, 5.0))
    with pytest.raises(TimeoutError):
        await late
    assert not later.done()
    with pytest.raises(TimeoutError):
        await later
    assert loop.time() - began >= 0.095
    assert await take(deadlines, 0.0) == "done", "it goes on after all were ended"


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    running = asyncio.create_task(take(Deadlines(5.0), 5.0))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_error_of_what_runs_is_its_own() -> None:
    with pytest.raises(ValueError, match="its own"), Deadlines(5.0).begin():
        raise ValueError("its own")
