from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from tocsin_ingestion.admission import Admission, Limits
from tocsin_ingestion.body import read_body
from tocsin_ingestion.problems import Problem
from tocsin_ingestion.server import plan_drain


def build_request(*chunks: bytes, is_complete: bool = True, length: str | None = None) -> Request:
    """Build a request whose body arrives in chunks and, unless it is complete, then stops arriving."""
    waiting = list(chunks)

    async def receive() -> MutableMapping[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting) or not is_complete}

    headers = [] if length is None else [(b"content-length", length.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


class Idle:
    in_flight = in_flight_bytes = 0
    oldest_in_flight_seconds = 0.0


async def read(request: Request, **options: Any) -> bytes:
    return await read_body(request, Admission(Idle()), limit=4, **options)


async def refuse(request: Request, **options: Any) -> int:
    with pytest.raises(Problem) as caught:
        await read(request, **options)
    return caught.value.kind.status


async def test_a_body_for_which_there_is_no_room_is_a_503_and_what_it_took_is_given_back() -> None:
    admission = Admission(Idle(), Limits(max_bodies_bytes=3))
    with pytest.raises(Problem) as caught:
        await read_body(build_request(b"ab", b"cd"), admission, limit=4)
    assert caught.value.kind.name == "busy"
    assert await read_body(build_request(b"ab", b"c"), admission, limit=4) == b"abc"


async def test_a_body_that_was_only_announced_takes_no_room() -> None:
    admission = Admission(Idle(), Limits(max_bodies_bytes=3))
    announced = asyncio.create_task(read_body(build_request(is_complete=False, length="3"), admission, limit=4))
    await asyncio.sleep(0)  # it waits for its first byte
    assert await read_body(build_request(b"abc", length="3"), admission, limit=4) == b"abc"
    announced.cancel()


async def test_chunks_are_put_together() -> None:
    assert await read(build_request(b"a", b"b", b"c")) == b"abc"


async def test_an_empty_body_is_empty() -> None:
    assert await read(build_request(b"")) == b""


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert await read(build_request(b"abcd", length="4")) == b"abcd"


async def test_a_declared_length_above_the_limit_is_refused_before_anything_is_read() -> None:
    assert await refuse(build_request(is_complete=False, length="5")) == 413


async def test_chunks_above_the_limit_are_refused_without_waiting_for_the_rest() -> None:
    assert await refuse(build_request(b"abc", b"de", is_complete=False)) == 413


async def test_a_body_that_stops_arriving_is_a_408() -> None:
    assert await refuse(build_request(b"a", is_complete=False), timeout_seconds=0.01) == 408


async def test_a_client_that_leaves_is_not_a_problem_of_the_body() -> None:
    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await read(Request({"type": "http", "method": "POST", "headers": []}, receive))


@pytest.mark.parametrize("budget_seconds", [0, 1, 4, 20, 600])
def test_a_drain_spends_exactly_its_budget(budget_seconds: float) -> None:
    plan = plan_drain(budget_seconds)
    assert sum(plan) == pytest.approx(budget_seconds)
    assert min(plan) >= 0
    assert plan.announce_seconds <= 5


def test_the_default_drain_outlasts_a_send_that_waits_for_its_deadline() -> None:
    assert plan_drain(20).answer_seconds > 10 + 2
