"""Raw bytes on the socket: no crash, no hang, and no difference between the hot path and the routes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from http_fuzz import Case, choose_cases
from ingestion_api import Running, run_api
from raw_http import Reply, converse, normalise, read_replies
from tocsin_core.codec import decode

QUIET_SECONDS, VERY_QUIET_SECONDS = 0.3, 5.0
NOT_HTTP = Reply(
    400,
    (("connection", "close"), ("content-type", "text/plain; charset=utf-8")),
    b"Invalid HTTP request received.",
)

Found = tuple[Any, ...]


async def play(api: Running, case: Case, quiet_seconds: float) -> Found:
    api.sink.records.clear()
    heard = await converse(api.port, case.parts, quiet_seconds=quiet_seconds, pause_seconds=0.001)
    for key, value, _ in api.sink.records:
        assert decode(value).to_id.encode() == key
    return heard.ending, read_replies(heard.data), [(key, normalise(value)) for key, value, _ in api.sink.records]


async def compare(case: Case, quiet_seconds: float) -> tuple[Found, Found]:
    async with run_api("hot") as hot, run_api("routes") as routes:
        return await asyncio.gather(play(hot, case, quiet_seconds), play(routes, case, quiet_seconds))


def agree(hot: Found, routes: Found) -> bool:
    """Say whether both are the same, but for two things.

    A reset connection may have lost answers on the way to the client. And where something that is not HTTP follows
    requests, uvicorn drops the answers it is still making, and the hot path gives them.
    """
    if hot != routes and routes[1][-1:] == [NOT_HTTP]:
        answered = routes[1][:-1]
        is_same_so_far = hot[1][: len(answered)] == answered and hot[2][: len(routes[2])] == routes[2]
        return bool(is_same_so_far and hot[0] != "open")
    if "reset" in (hot[0], routes[0]):
        shorter, longer = sorted((hot[1], routes[1]), key=len)
        return bool(longer[: len(shorter)] == shorter)
    return hot == routes


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """A picture of each traceback would cost more than the whole test."""
    with structlog.testing.capture_logs():
        yield


@pytest.mark.timeout(3_600)
async def test_both_ways_say_the_same_to_whatever_bytes_arrive(pytestconfig: pytest.Config) -> None:
    seconds = pytestconfig.getoption("--fuzz-seconds")
    seen: set[int] = set()
    async with run_api("hot") as hot, run_api("routes") as routes:
        for case in choose_cases(seconds):
            found = await asyncio.gather(play(hot, case, QUIET_SECONDS), play(routes, case, QUIET_SECONDS))
            if not agree(*found):  # a busy machine may have kept one of them quiet: once more, and for long
                found = await compare(case, VERY_QUIET_SECONDS)
            assert agree(*found), f"case {case.number}: {case.parts!r}"
            seen |= {reply.status for reply in found[0][1]}
        for api in (hot, routes):
            assert (await api.client.post("/v1/notifications", json={})).status_code == 422
    assert {202, 400, 404, 422} <= seen
