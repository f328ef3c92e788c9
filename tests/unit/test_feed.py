"""Lines go out in the order of the file for each recipient, and at the same time for different ones."""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from tocsin_cli.feed import Line, Target, post_lines, read_lines, read_target
from tocsin_cli.poster import Answer
from tocsin_core.message import MAX_BODY_BYTES

ACCEPTED = Answer(202, "id")


async def collect(path: Path, stop: asyncio.Event) -> list[Line]:
    return [line async for line in read_lines(path, stop)]


async def lines_of(path: Path) -> list[Line]:
    return await collect(path, asyncio.Event())


def write(folder: Path, content: bytes) -> Path:
    path = folder / "my.ndjson"
    path.write_bytes(content)
    return path


async def test_blank_lines_are_skipped_and_still_counted(tmp_path: Path) -> None:
    found = await lines_of(write(tmp_path, b'\n{"a": 1}\n\n   \n{"b": 2}'))
    assert [(line.number, line.body) for line in found] == [(2, b'{"a": 1}'), (5, b'{"b": 2}')]


async def test_carriage_returns_and_a_byte_order_mark_are_not_part_of_a_line(tmp_path: Path) -> None:
    found = await lines_of(write(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n{"b": 2}\r\n'))
    assert [line.body for line in found] == [b'{"a": 1}', b'{"b": 2}']


async def test_a_line_too_long_for_a_request_is_marked_and_the_next_is_whole(tmp_path: Path) -> None:
    found = await lines_of(write(tmp_path, b"x" * (3 * MAX_BODY_BYTES) + b"\nnext\n"))
    assert found == [Line(1, b"", is_whole=False), Line(2, b"next")]


async def test_a_line_as_long_as_a_request_may_be_is_whole(tmp_path: Path) -> None:
    found = await lines_of(write(tmp_path, b"x" * MAX_BODY_BYTES + b"\r\nnext"))
    assert [(line.is_whole, len(line.body)) for line in found] == [(True, MAX_BODY_BYTES), (True, 4)]


async def test_a_stop_ends_the_lines_while_a_pipe_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    assert await asyncio.wait_for(collect(tmp_path / "pipe", stop), 5) == []
    (tmp_path / "pipe").open("wb").close()


async def test_one_recipients_lines_wait_for_each_other_and_other_recipients_do_not() -> None:
    under_way: defaultdict[object, int] = defaultdict(int)
    posted: defaultdict[object, list[int]] = defaultdict(list)
    most_at_once = 0

    async def lines() -> AsyncIterator[Line]:
        for number in range(400):
            yield Line(number, msgspec.json.encode({"toID": number % 7, "message": str(number)}))

    async def post(body: bytes) -> Answer:
        nonlocal most_at_once
        content = msgspec.json.decode(body)
        under_way[content["toID"]] += 1
        most_at_once = max(most_at_once, sum(under_way.values()))
        assert under_way[content["toID"]] == 1
        for _ in range(random.randint(0, 3)):
            await asyncio.sleep(0)
        under_way[content["toID"]] -= 1
        posted[content["toID"]].append(int(content["message"]))
        return ACCEPTED

    await post_lines(lines(), post, lambda _line, _target, _answer: None)
    assert all(numbers == sorted(numbers) for numbers in posted.values())
    assert sum(map(len, posted.values())) == 400
    assert most_at_once > 1


async def test_every_line_is_reported_with_its_answer() -> None:
    reported: list[tuple[int, Answer]] = []

    async def lines() -> AsyncIterator[Line]:
        yield Line(1, b'{"toID": 1}')
        yield Line(2, b"", is_whole=False)

    async def post(body: bytes) -> Answer:
        del body
        return ACCEPTED

    await post_lines(lines(), post, lambda line, _target, answer: reported.append((line.number, answer)))
    assert reported[0] == (1, ACCEPTED)
    assert reported[1][1].reason.startswith("longer than 262144 bytes")


def test_what_is_malformed_has_no_target_and_is_left_to_the_service() -> None:
    assert read_target(b'{"toID": ') == Target()
    assert read_target(b"\xff\xfe") == Target()
    assert read_target(b"[1]") == Target()


def test_channels_and_recipient_are_read_from_the_body() -> None:
    assert read_target(b'{"toID": 2, "channels": ["log"], "message": "x"}') == Target(2, ["log"])
