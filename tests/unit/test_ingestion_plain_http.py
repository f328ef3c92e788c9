"""Requests whose clients offer another protocol are answered like all others, and so are those behind them."""

from __future__ import annotations

import pytest

from ingestion_api import GOOD, Way, run_api
from ingestion_corpus import OFFER, OFFERS
from raw_http import build_request, read_replies, read_reply

CLOSING = build_request(GOOD, headers=[("Connection", "close")])


async def hear(way: Way, *reads: bytes) -> list[int]:
    """Return the statuses that come of these reads, and of a last request behind them."""
    async with run_api(way) as api:
        reader, writer, connection = await api.connect()
        for data in reads:
            connection.data_received(data)
        connection.data_received(CLOSING)
        replies = read_replies(await reader.read())
        writer.close()
        assert len(api.sink.records) == sum(reply.status == 202 for reply in replies)
        return [reply.status for reply in replies if reply.status != 100]


@pytest.mark.parametrize("way", ["hot", "routes"])
@pytest.mark.parametrize("name", OFFERS)
async def test_an_offer_is_ignored_wherever_its_body_arrives(way: Way, name: str) -> None:
    request = OFFERS[name]
    head, end, body = request.partition(b"\r\n\r\n")
    assert await hear(way, request) == [202, 202]
    assert await hear(way, head + end, body) == [202, 202]
    assert await hear(way, head + end + body[:5], body[5:]) == [202, 202]
    assert await hear(way, head, end, *[body[at : at + 1] for at in range(len(body))]) == [202, 202]


@pytest.mark.parametrize("way", ["hot", "routes"])
async def test_offers_may_follow_each_other_in_one_read(way: Way) -> None:
    request = build_request(GOOD, headers=OFFER)
    assert await hear(way, request * 2_000 + request[:-3], request[-3:]) == [202] * 2_002


async def test_a_body_behind_an_offer_is_never_taken_for_a_request() -> None:
    hidden = build_request(GOOD, headers=[("Idempotency-Key", "hidden")])
    offer = build_request(hidden, headers=OFFER)
    head, end, body = offer.partition(b"\r\n\r\n")
    assert await hear("hot", offer) == [400, 202]
    assert await hear("hot", head + end, body) == [400, 202]


@pytest.mark.parametrize("way", ["hot", "routes"])
async def test_behind_a_request_for_a_tunnel_nothing_is_answered(way: Way) -> None:
    async with run_api(way) as api:
        reader, writer, connection = await api.connect()
        connection.data_received(build_request(method="CONNECT", content_type=None, content_length=None) + b"any")
        reply = await read_reply(reader)
        assert (reply.status, dict(reply.headers)["connection"]) == (405, "close")
        assert await reader.read() == b""
        writer.close()
        assert api.sink.records == []
