"""`tocsin dlq` against a real topic of dead letters that a real consumer has written."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pty
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from receiver import Answer, Receiver
from tocsin_cli.dlq import command
from tocsin_cli.dlq.settling import ChoiceError
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_core.message import Record
from tocsin_core.reader import RangeReader
from tocsin_core.settings import KafkaConnection
from world import PARTITIONS, World, notifications, webhook

pytestmark = pytest.mark.kafka

ODD_VALUE = b'{ "id":"odd", "fromID":"1",\n "toID":"2", "message":"\\u00fc" }'
ODD_HEADERS = [("x-trace", b"\x80\x81"), ("x-trace", b"again"), ("x-null", None)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(Answer(410)) as server:
        yield server


class Desk:
    """The command, pointed at one world."""

    def __init__(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.place = ["--brokers", world.bootstrap, "--topic", world.topic]

    async def run(self, *words: str) -> tuple[int, str, str]:
        """Run `tocsin dlq` with these words; return exit code, standard output and standard error."""
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        arguments = parser.parse_args([*words, *self.place])
        self._capsys.readouterr()
        code = await arguments.word(arguments)
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    async def start(self, *words: str, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        """Start `tocsin dlq` as a process of its own."""
        command_line = [sys.executable, "-m", "tocsin_cli", "dlq", *words, *self.place]
        return await asyncio.create_subprocess_exec(*command_line, stdin=stdin, stdout=asyncio.subprocess.PIPE)

    async def read(self, *words: str) -> list[dict[str, Any]]:
        code, out, _ = await self.run("list", "--json", *words)
        assert code == 0
        return [json.loads(line) for line in out.splitlines()]

    async def read_ids(self, *words: str) -> list[str]:
        return sorted(each["id"] for each in await self.read(*words))


@pytest.fixture
def desk(world: World, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(world, capsys)


async def read_all(world: World, topic: str, partitions: int) -> list[Record]:
    reader = RangeReader(KafkaConnection(brokers=[world.bootstrap]), client_id="tests")
    records: list[Record] = []
    for partition in range(partitions):
        position = 0
        while found := (stretch := await reader.read(topic, partition, position, max_records=1000)).records:
            records += found
            position = stretch.next_offset
    await reader.close()
    return records


async def bury(world: World, receiver: Receiver, count: int) -> None:
    """Let a consumer bury `count` notifications that are in the topic, because the receiver refuses them for good."""
    async with world.consuming([webhook(receiver.url)]):
        await world.read_dead_letters(count)


async def test_dead_letters_are_listed_with_why_they_died_and_filtered(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.produce(notifications(6, recipients=3))
    world.produce_raw(b"junk", b"7")
    await bury(world, receiver, 7)
    [first, *_] = await desk.read("--id", "n0")
    assert first["position"].startswith("0:")
    assert (first["reason"], first["channel"], first["key"]) == ("provider_permanent", "hook", "1")
    assert (first["attempts"], first["replayCount"], first["error"]) == (1, 0, "HTTP 410")
    assert first["originalTopic"] == world.topic
    assert await desk.read_ids("--key", "2") == ["n1", "n4"]
    assert await desk.read_ids("--channel", "hook", "--reason", "provider_permanent", "--key", "2", "--key", "3") == [
        "n1",
        "n2",
        "n4",
        "n5",
    ]
    assert [each["key"] for each in await desk.read("--reason", "undecodable")] == ["7"]
    assert await desk.read("--since", "1h", "--until", "30m") == []
    assert len(await desk.read("--since", "1h", "--limit", "3")) == 3
    code, out, _ = await desk.run("list")
    assert code == 0
    assert "6  provider_permanent on hook" in out
    assert "1  undecodable on -" in out
    assert "7 dead letters" in out
    assert out.count("HTTP 410") == 6


async def test_a_replay_is_the_original_byte_for_byte_and_is_delivered(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.produce_raw(ODD_VALUE, b"2", ODD_HEADERS)
    await bury(world, receiver, 1)
    assert (await desk.run("replay", "--all"))[:2] == (0, "replayed 1\n")
    original, replayed = sorted(await read_all(world, world.topic, PARTITIONS), key=lambda each: each.offset)
    assert (replayed.value, replayed.key) == (original.value, original.key) == (ODD_VALUE, b"2")
    assert replayed.headers == (*original.headers, ("dlq-replay-count", b"1"), ("replay-channel", b"hook"))
    assert replayed.partition == original.partition
    receiver.answer = Answer(200)
    async with world.consuming([webhook(receiver.url)]):
        await receiver.wait_for(1)
    assert receiver.ids == ["odd"]


async def test_a_letter_that_its_topic_does_not_take_whole_is_written_without_its_value_and_not_replayed(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.dead_letter_topic = f"{world.topic}.small"
    await world.create_topic(world.dead_letter_topic, 1, max_message_bytes=5_000)
    desk.place += ["--dead-letter-topic", world.dead_letter_topic]
    world.produce_raw(secrets.token_bytes(9_000), b"2", ODD_HEADERS)
    world.produce_raw(b"small", b"2")
    delivery = {"dead_letter_topic": world.dead_letter_topic}
    async with world.consuming([webhook(receiver.url)], delivery=delivery):
        large, small = await world.read_dead_letters(2)
    assert (large.value, large.headers[:3], large.header("dlq-value-omitted")) == (b"", tuple(ODD_HEADERS), b"9000")
    assert small.value == b"small"
    assert world.committed() == 2
    code, out, _ = await desk.run("show", f"0:{large.offset}")
    assert code == 0
    assert "9,000 bytes that the dead-letter topic did not take" in out
    code, out, err = await desk.run("replay", "--all")
    assert (code, out) == (3, "replayed 1, refused 1\n")
    assert f"0:{large.offset} refused: its value of 9,000 bytes is not here" in err


async def test_a_replay_goes_to_the_channel_that_failed_and_to_no_other(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    with Receiver() as healthy:
        channels = [webhook(receiver.url, "broken"), webhook(healthy.url, "healthy")]
        world.produce(notifications(5))
        async with world.consuming(channels):
            await world.read_dead_letters(5)
            await healthy.wait_for(5)
        receiver.answer = Answer(200)
        assert (await desk.run("replay", "--channel", "broken"))[0] == 0
        async with world.consuming(channels):
            await receiver.wait_for(5)
    assert sorted(receiver.ids) == sorted(healthy.ids) == [f"n{number}" for number in range(5)]
    assert world.committed() == 10


async def test_the_claims_of_a_dead_letter_let_its_replay_through_and_what_was_sent_is_not_sent_again(
    world: World, receiver: Receiver, desk: Desk, valkey: EmbeddedValkey
) -> None:
    def consuming() -> AbstractAsyncContextManager[object]:
        return world.consuming([webhook(receiver.url)], redis={"url": valkey.url})

    number = secrets.randbelow(10**9)
    world.produce(notifications(1, recipients=1, start=number))
    async with consuming():
        await world.read_dead_letters(1)
    receiver.answer = Answer(200)
    assert (await desk.run("replay", "--all"))[0] == 0
    async with consuming():
        await receiver.wait_for(1)
    [*_, replayed] = sorted(await read_all(world, world.topic, PARTITIONS), key=lambda each: each.offset)
    world.produce_raw(replayed.value, replayed.key, replayed.headers)  # as if its marker had been lost
    world.produce(notifications(1, recipients=1, start=number + 1))
    async with consuming():
        await receiver.wait_for(2)
    assert receiver.ids == [f"n{number}", f"n{number + 1}"]


async def test_what_was_replayed_is_listed_no_longer_and_not_replayed_again(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.produce(notifications(3))
    await bury(world, receiver, 3)
    [position] = [each["position"] for each in await desk.read("--id", "n1")]
    assert (await desk.run("replay", position))[0] == 0
    assert await desk.read_ids() == ["n0", "n2"]
    assert [each["settled"] for each in await desk.read("--settled", "--id", "n1")] == ["replayed"]
    code, out, _ = await desk.run("replay", position)
    assert (code, out) == (0, "replayed 0, passed over 1 settled before\n")
    _, out, _ = await desk.run("list")
    assert "2 dead letters (1 replayed before)" in out
    assert len(await read_all(world, world.topic, PARTITIONS)) == 4


async def test_a_record_that_nobody_can_read_is_replayed_untouched_too(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.produce_raw(b"\x00\xff", None, [("x", b"\xfe")])
    await bury(world, receiver, 1)
    assert (await desk.run("replay", "--reason", "undecodable"))[0] == 0
    replayed = max(await read_all(world, world.topic, PARTITIONS), key=lambda each: each.timestamp_ms)
    assert (replayed.value, replayed.key) == (b"\x00\xff", None)
    assert replayed.headers == (("x", b"\xfe"), ("dlq-replay-count", b"1"))


async def test_what_dies_again_is_refused_once_it_was_replayed_often_enough(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.produce(notifications(1))
    await bury(world, receiver, 1)
    assert (await desk.run("replay", "--all"))[0] == 0
    await bury(world, receiver, 3)  # the letter, its marker, and the letter of the replay
    [again] = await desk.read()
    assert again["replayCount"] == 1
    code, out, err = await desk.run("replay", "--all", "--max-replays", "1")
    assert (code, out) == (3, "replayed 0, refused 1, passed over 1 settled before\n")
    assert f"{again['position']} refused: replayed 1 times already" in err
    assert (await desk.run("replay", "--all", "--max-replays", "2"))[0] == 0
    assert len(await read_all(world, world.topic, PARTITIONS)) == 3


async def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.produce(notifications(2))
    await bury(world, receiver, 2)
    code, out, _ = await desk.run("replay", "--all", "--dry-run")
    assert code == 0
    assert "would be replayed: n0 to 1, provider_permanent on hook" in out
    assert out.endswith("would replay 2\n")
    assert len(await read_all(world, world.topic, PARTITIONS)) == 2
    assert len(await read_all(world, world.dead_letter_topic, 1)) == 2


async def test_a_replay_ends_when_dead_letters_keep_coming_unless_it_is_told_to_go_on(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.produce(notifications(60))
    await bury(world, receiver, 60)
    async with world.consuming([webhook(receiver.url)]):
        code, out, _ = await desk.run("replay", "--all", "--rate", "20")
        assert code == 1
        assert "new dead letters" in out
        assert "provider_permanent on hook" in out
        left = len(await desk.read("--until", "0s"))
        assert left > 0
        code, out, _ = await desk.run("replay", "--all", "--rate", "200", "--ignore-growth")
        assert code == 0


async def test_what_is_discarded_is_hidden_but_kept_and_needs_a_yes(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.produce(notifications(3))
    await bury(world, receiver, 3)
    with pytest.raises(ChoiceError, match="say --yes"):
        await desk.run("discard", "--id", "n0")
    assert (await desk.run("discard", "--id", "n0", "--yes"))[:2] == (0, "discarded 1\n")
    assert await desk.read_ids() == ["n1", "n2"]
    [marker] = (await read_all(world, world.dead_letter_topic, 1))[3:]
    assert (marker.key, marker.value, marker.header("dlq-settled")) == (b"1", b"", b"discarded")
    code, out, _ = await desk.run("replay", "--id", "n0")
    assert (code, out) == (0, "replayed 0, passed over 1 settled before\n")


@pytest.mark.parametrize(("answer", "left"), [("n", ["n0"]), ("y", [])])
async def test_a_person_is_asked_before_anything_is_discarded(
    world: World, receiver: Receiver, desk: Desk, answer: str, left: list[str]
) -> None:
    world.produce(notifications(1))
    await bury(world, receiver, 1)
    ours, theirs = pty.openpty()
    process = await desk.start("discard", "--all", stdin=theirs)
    os.write(ours, f"{answer}\n".encode())
    out = (await process.communicate())[0].decode()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == len(left)
    assert "0:0  n0 to 1, provider_permanent on hook\n" in out
    assert f"Discard 1 dead letters of {world.dead_letter_topic}? [y/N]" in out
    assert await desk.read_ids() == left


async def test_a_senders_own_headers_cannot_hide_a_dead_letter(world: World, receiver: Receiver, desk: Desk) -> None:
    world.produce(notifications(1))
    world.produce_raw(b"", b"1", [("dlq-settled", b"discarded"), ("dlq-settles", b"0:0")])
    await bury(world, receiver, 2)
    assert len(await desk.read()) == 2


async def test_a_letter_is_shown_whole(world: World, receiver: Receiver, desk: Desk) -> None:
    world.produce_raw(ODD_VALUE, b"2", ODD_HEADERS)
    await bury(world, receiver, 1)
    code, out, _ = await desk.run("show", "0:0")
    assert code == 0
    assert "reason    provider_permanent on hook" in out
    assert "  x-trace: \\x80\\x81\n  x-trace: again\n  x-null: null\n" in out
    assert '  "message": "ü"' in out
    assert "now       open" in out
    code, _, err = await desk.run("show", "0:17")
    assert (code, err) == (1, f"{world.dead_letter_topic} has no dead letter at 0:17\n")


async def test_positions_that_are_not_there_are_named(world: World, receiver: Receiver, desk: Desk) -> None:
    world.produce(notifications(1))
    await bury(world, receiver, 1)
    code, out, _ = await desk.run("replay", "0:0", "0:5", "9:0")
    assert (code, out) == (1, "replayed 1, not there: 0:5, 9:0\n")


async def test_a_replay_that_is_interrupted_says_how_far_it_came_and_goes_on_from_there(
    world: World, receiver: Receiver, desk: Desk
) -> None:
    world.produce(notifications(40, recipients=1))
    await bury(world, receiver, 40)
    process = await desk.start("replay", "--all", "--rate", "10")
    while len(await read_all(world, world.topic, PARTITIONS)) < 43:
        pass
    process.send_signal(signal.SIGINT)
    out = (await process.communicate())[0].decode()
    assert process.returncode == 130
    done = len(await read_all(world, world.topic, PARTITIONS)) - 40
    assert out.startswith(f"replayed {done}\nstopped after 0:{done - 1}: interrupted")
    assert (await desk.run("replay", "--all"))[:2] == (0, f"replayed {40 - done}, passed over {done} settled before\n")
    values = [record.value for record in await read_all(world, world.topic, PARTITIONS)]
    assert values[40:] == values[:40]
