"""The load sends what the profile says is due, and no more."""

from __future__ import annotations

import asyncio

import msgspec

from tocsin_cli.dev.load import Load, build_body
from tocsin_cli.dev.profile import build_steady_profile
from tocsin_cli.poster import Answer


async def test_everything_due_is_sent_and_every_answer_is_reported() -> None:
    answers: list[Answer] = []
    load = Load(build_steady_profile(0.2, 500), ["1", "2"])

    async def post(body: bytes) -> Answer:
        return Answer(202, msgspec.json.decode(body)["title"])

    await load.run(post, answers.append, asyncio.Event())
    assert load.sent == len(answers) == 100


async def test_a_stop_ends_the_load_early_but_not_its_open_requests() -> None:
    answers: list[Answer] = []
    stop = asyncio.Event()

    async def post(body: bytes) -> Answer:
        del body
        stop.set()
        await asyncio.sleep(0.01)
        return Answer(202, "id")

    load = Load(build_steady_profile(60, 1000), ["1"])
    await asyncio.wait_for(load.run(post, answers.append, stop), 10)
    assert 1 <= len(answers) == load.sent < 1000


def test_a_body_is_a_notification_the_api_takes() -> None:
    body = msgspec.json.decode(build_body(7, "2"))
    assert body["toID"] == "2"
    assert "7" in body["message"]
