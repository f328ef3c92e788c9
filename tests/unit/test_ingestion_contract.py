"""The hot path and the routes are one API: the same bytes get the same answers, and store the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from gates import build_gate, build_key_ring
from ingestion_api import BATCH, GOOD, ONE, Running, run_api
from ingestion_corpus import BURST, CORPUS, KEY, KEYED_CORPUS, OFFERS
from raw_http import LAST, Heard, Reply, build_request, converse, normalise, read_replies
from tocsin_core.errors import KafkaFailure, KafkaUnavailable, NotAuthorized, OutcomeUnknown, RecordRejected
from tocsin_ingestion.admission import Limits
from tocsin_ingestion.auth.gate import Gate
from tocsin_ingestion.problems import KINDS


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """A picture of each traceback would cost more than the whole test."""
    with structlog.testing.capture_logs():
        yield


def outcome(api: Running, heard: Heard) -> tuple[list[Reply], str, list[Any]]:
    """Return all that must be the same on both ways."""
    records = [(key, normalise(value)) for key, value, _ in api.sink.records]
    return read_replies(heard.data), heard.ending, records


def cut(data: bytes, pieces: int) -> Iterator[bytes]:
    size = -(-len(data) // pieces)
    return (data[start : start + size] for start in range(0, len(data), size))


async def play(
    way: Any, data: bytes, *, pieces: int = 1, gate: Gate | None = None
) -> tuple[list[Reply], str, list[Any]]:
    async with run_api(way, gate=gate) as api:
        return outcome(api, await converse(api.port, [*cut(data, pieces), LAST], pause_seconds=0.002 * (pieces > 1)))


@pytest.mark.parametrize("name", CORPUS)
async def test_both_ways_give_the_same_answers_and_store_the_same(name: str) -> None:
    hot, routes = await asyncio.gather(play("hot", CORPUS[name]), play("routes", CORPUS[name]))
    assert hot == routes
    assert hot[0]


@pytest.mark.parametrize(
    "name", ["good", "at the limit", "key, repeated", "mixed batch", "pipelined with refusals", *OFFERS]
)
async def test_a_request_in_pieces_gets_the_answers_of_the_whole(name: str) -> None:
    whole, pieces = await asyncio.gather(play("hot", CORPUS[name]), play("hot", CORPUS[name], pieces=50))
    assert pieces == whole


@pytest.mark.parametrize("name", KEYED_CORPUS)
async def test_both_ways_ask_who_calls_alike(name: str, tmp_path: Path) -> None:
    ring = build_key_ring(tmp_path / "keys")
    hot, routes = await asyncio.gather(
        play("hot", KEYED_CORPUS[name], gate=build_gate(ring, burst=BURST)),
        play("routes", KEYED_CORPUS[name], gate=build_gate(ring, burst=BURST)),
    )
    assert hot == routes
    assert hot[0]


@pytest.mark.parametrize("name", ["refused, then let in", "more than the limit", "batch, more than the limit"])
async def test_nobody_is_counted_or_refused_differently_for_a_request_in_pieces(name: str, tmp_path: Path) -> None:
    ring = build_key_ring(tmp_path / "keys")
    whole, pieces = await asyncio.gather(
        play("hot", KEYED_CORPUS[name], gate=build_gate(ring, burst=BURST)),
        play("hot", KEYED_CORPUS[name], gate=build_gate(ring, burst=BURST), pieces=20),
    )
    assert pieces == whole


async def test_the_corpus_meets_every_answer_that_a_request_alone_can_bring_about(tmp_path: Path) -> None:
    met: set[str] = set()
    gate = build_gate(build_key_ring(tmp_path / "keys"), burst=BURST)
    for corpus, its_gate in ((CORPUS, None), (KEYED_CORPUS, gate)):
        async with run_api("routes", gate=its_gate) as api:
            for data in corpus.values():
                for reply in read_replies((await converse(api.port, [data, LAST])).data):
                    met |= {part.split(b'"')[0].decode() for part in reply.body.split(b"tag:tocsin.dev,2026:")[1:]}
    elsewhere = {
        "body-timeout",
        "head-timeout",
        "head-too-large",
        "upgrade-required",
        "forbidden",
        "auth-unavailable",
        "idempotency-key-in-flight",
        "busy",
        "draining",
        "outcome-unknown",
    }
    kafka = {"kafka-unavailable", "kafka-refused", "record-rejected"}
    assert met == {kind.name for kind in KINDS} - elsewhere - kafka


@pytest.mark.parametrize(
    "failure", [KafkaUnavailable("x"), NotAuthorized("x"), RecordRejected("x"), OutcomeUnknown("x")]
)
@pytest.mark.parametrize("target", [ONE, BATCH])
@pytest.mark.parametrize("headers", [[], [KEY]])
async def test_both_ways_explain_a_kafka_that_fails_alike(
    failure: KafkaFailure, target: str, headers: list[tuple[str, str]]
) -> None:
    async def fail(way: Any) -> tuple[list[Reply], str, list[Any]]:
        async with run_api(way) as api:
            api.sink.failure = failure
            body = GOOD if target == ONE else [GOOD, GOOD]
            request = build_request(body, target=target, headers=headers)
            return outcome(api, await converse(api.port, [request, LAST]))

    assert await fail("hot") == await fail("routes")


async def test_users_who_cannot_be_looked_up_are_a_503_that_says_so_and_when_to_come_back() -> None:
    [one, *_], _, stored = await play("hot", CORPUS["a directory that is down"])
    assert (one.status, dict(one.headers)["retry-after"], stored) == (503, "5", [])
    assert b"directory-unavailable" in one.body
    assert b"Whether these users exist cannot be told at present" in one.body
    assert b"users.http" not in one.body
    [batch, *_], _, stored = await play("hot", CORPUS["batch while the directory is down"])
    assert [item["status"] for item in batch.json["results"]] == [202, 503, 404, 503]
    assert len(stored) == 1


@pytest.mark.parametrize("target", [ONE, BATCH])
async def test_both_ways_answer_504_when_the_deadline_passes_and_nobody_has_answered(target: str) -> None:
    async def stall(way: Any) -> tuple[list[Reply], str, list[Any]]:
        async with run_api(way, delivery_timeout_seconds=-1.9) as api:  # the grace of 2 s leaves 0.1
            api.sink.is_open.clear()
            body = GOOD if target == ONE else [GOOD, GOOD]
            heard = await converse(api.port, [build_request(body, target=target), LAST])
            found = outcome(api, heard)
            api.sink.is_open.set()
            return found

    hot, routes = await asyncio.gather(stall("hot"), stall("routes"))
    assert hot == routes
    assert hot[0][0].status == (504 if target == ONE else 207)


async def test_both_ways_refuse_at_every_bound() -> None:
    async def refuse(way: Any, limits: Limits, oldest_seconds: float) -> tuple[list[Reply], str, list[Any]]:
        async with run_api(way, limits=limits) as api:
            api.sink.in_flight, api.sink.in_flight_bytes = 1, 1_000
            api.sink.oldest_in_flight_seconds = oldest_seconds
            return outcome(api, await converse(api.port, [build_request(GOOD), LAST]))

    for limits, oldest_seconds in (
        (Limits(max_in_flight=1), 0.0),
        (Limits(max_in_flight_bytes=1_000), 0.0),
        (Limits(max_bodies_bytes=10), 0.0),
        (Limits(), 9.0),
    ):
        hot = await refuse("hot", limits, oldest_seconds)
        assert hot == await refuse("routes", limits, oldest_seconds)
        assert hot[0][0].status == 503
