"""`python -m chaos.soak`: an hour of ordinary life, after which memory is what it was and dead letters go back whole.

    python -m chaos.soak [--minutes 60] [--rate 100] [--directory PATH]

Two consumers, two channels, strict order, and a provider that fails now and then, so that retry topics, queues, claims
and dead letters are all in use. Needs Linux, which says what memory a process holds. The last line is JSON; the exit
code is 1 if memory or any container grew, a dead letter came back changed, or a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from chaos.census import read_censuses
from chaos.flatness import Verdict, judge_flatness
from chaos.ground import LIBRDKAFKA, Broker
from chaos.manners import Manners
from chaos.oracle import Delivery, Promise
from chaos.pipeline import Outcome, Pipeline, Shape
from chaos.process import Process
from tocsin_consumer.planning import REPLAY_CHANNEL
from tocsin_core.kafka_message import read_message
from tocsin_core.message import Record

MEMBERS = 2
TELL_SECONDS = 60.0
REPLAY_SECONDS = 300.0
ADDED = {REPLAY_CHANNEL, "dlq-replay-count"}
ORDINARY = Manners(max_delay_seconds=0.02, throttled=0.0002, failed=0.01, dropped=0.001, slow=0.0002, refused=0.002)
SHAPE = Shape(
    recipients=500,
    channels=("hook", "mail"),
    concurrency=32,
    ordering="Strict",
    session_seconds=45.0,
    manners=ORDINARY,
)
MEGABYTE = 1_000_000


async def run(arguments: argparse.Namespace) -> int:
    """Soak, bring the dead letters back, judge; return the exit code."""
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="tocsin-soak-"))
    async with Broker(directory / "broker") as broker, Pipeline(broker.address, directory / "soak", SHAPE) as pipeline:
        for number in range(MEMBERS):
            await pipeline.add_member("--census", str(directory / f"census-{number}.ndjson"))
        await _live(pipeline, arguments.minutes, arguments.rate)
        verdicts = [judge_flatness(read_censuses(directory / f"census-{number}.ndjson")) for number in range(MEMBERS)]
        await pipeline.wait_until_ended()
        letters = await asyncio.to_thread(_read_all, broker.address, f"{pipeline.topic}.dlq")
        changed = await _replay(pipeline, broker.address, letters, directory)
        outcome = await pipeline.settle(Promise(may_bury=True, replays=True))
    _explain(verdicts, outcome, directory)
    print(_build_last_line(verdicts, outcome, letters=len(letters), changed=changed))
    is_kept = all(each.is_flat for each in verdicts) and not outcome.breaches and not changed and letters
    return 0 if is_kept else 1


async def _live(pipeline: Pipeline, minutes: float, rate: float) -> None:
    began = time.monotonic()
    async with pipeline.load.running(rate, random.Random(1)):
        while (lived_seconds := time.monotonic() - began) < minutes * 60:
            sent, received = len(pipeline.load.sent) * len(SHAPE.channels), len(pipeline.read_receipts())
            print(f"{lived_seconds / 60:5.1f} min: {sent:,} deliveries owed, {received:,} requests", file=sys.stderr)
            await asyncio.sleep(min(TELL_SECONDS, minutes * 60 - lived_seconds))


async def _replay(pipeline: Pipeline, address: str, letters: Sequence[Record], directory: Path) -> int:
    """Send all dead letters back, wait until they were received; return how many came back changed."""
    await pipeline.set_manners(throttled=0.0, failed=0.0, dropped=0.0, slow=0.0, refused=0.0)
    words = ("dlq", "replay", "--brokers", address, "--topic", pipeline.topic, "--all")
    command = Process("tocsin_cli.__main__", words, directory / "replay.log")
    await command.start()
    code = await command.wait(timeout_seconds=REPLAY_SECONDS)
    if code != 0:
        pipeline.remarks.append(f"tocsin dlq replay ended with {code}: see {command.log_path}")
    owed = {_delivery_of(letter) for letter in letters}
    await pipeline.wait_for(
        lambda receipts: owed <= {each.delivery for each in receipts if each.is_taken}, timeout_seconds=REPLAY_SECONDS
    )
    records = await asyncio.to_thread(_read_all, address, pipeline.topic)
    originals = {(each.partition, each.offset): each for each in records}
    replayed = {_replay_key(each): each for each in records if each.header(REPLAY_CHANNEL) is not None}
    return sum(not _is_whole(letter, originals, replayed) for letter in letters)


def _is_whole(
    letter: Record, originals: dict[tuple[int, int], Record], replayed: dict[tuple[bytes | None, bytes | None], Record]
) -> bool:
    """Return whether a letter and what was sent back are the original, byte for byte, but for the headers added."""
    place = (int(letter.header("dlq-original-partition") or -1), int(letter.header("dlq-original-offset") or -1))
    original, back = originals.get(place), replayed.get((letter.value, letter.header("dlq-channel")))
    if original is None or back is None:
        return False
    kept = [header for header in back.headers if header[0] not in ADDED]
    return (original.key, original.value) == (back.key, back.value) == (letter.key, letter.value) and (
        list(original.headers) == kept == list(letter.headers[: len(original.headers)])
    )


def _replay_key(record: Record) -> tuple[bytes | None, bytes | None]:
    return (record.value, record.header(REPLAY_CHANNEL))


def _delivery_of(letter: Record) -> Delivery:
    notification_id = json.loads(letter.value or b"{}")["id"]
    return Delivery(notification_id, (letter.header("dlq-channel") or b"").decode())


def _read_all(address: str, topic: str) -> list[Record]:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "chaos-soak"}, logger=LIBRDKAFKA)
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        ends = {each: consumer.get_watermark_offsets(TopicPartition(topic, each), 10)[1] for each in partitions}
        consumer.assign([TopicPartition(topic, each, 0) for each in partitions])
        records: list[Record] = []
        while len(records) < sum(ends.values()):
            records += [read_message(each) for each in consumer.consume(1_000, 0.5) if each.error() is None]
        return records
    finally:
        consumer.close()


def _explain(verdicts: Sequence[Verdict], outcome: Outcome, directory: Path) -> None:
    for number, verdict in enumerate(verdicts):
        before, after = verdict.rss_before_bytes / MEGABYTE, verdict.rss_after_bytes / MEGABYTE
        print(
            f"consumer {number}: resident {before:.1f} MB in the second quarter, {after:.1f} MB in the last "
            f"({verdict.rss_ratio - 1:+.1%}), objects {verdict.objects_ratio - 1:+.1%}"
        )
        for path, (was, became) in verdict.growing.items():
            print(f"  grows: {path}: {was:,.0f} to {became:,.0f} entries")
    for breach in outcome.breaches:
        print(f"broken: {breach.reason}")
    print(f"logs: {directory}")


def _build_last_line(verdicts: Sequence[Verdict], outcome: Outcome, *, letters: int, changed: int) -> str:
    counts = outcome.findings.counts
    farthest = max(verdicts, key=lambda verdict: abs(verdict.rss_ratio - 1))
    line = {
        "rss_ratio": round(farthest.rss_ratio, 4),
        "growing": sorted({path for verdict in verdicts for path in verdict.growing}),
        "sent": counts.sent,
        "lost": counts.lost,
        "duplicates": counts.duplicates,
        "uncertain": counts.uncertain,
        "out_of_order": counts.out_of_order,
        "dead_letters": letters,
        "replayed_whole": letters - changed,
    }
    return json.dumps(line, separators=(",", ":"))


def main(words: Sequence[str]) -> int:
    """Understand the command line and run."""
    parser = argparse.ArgumentParser(prog="chaos.soak", description="Live for a while and see what grew.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100.0, help="notifications a second (default: 100)")
    parser.add_argument("--directory", type=Path, help="where logs are kept (default: a new temporary folder)")
    logging.getLogger("tocsin").addHandler(logging.NullHandler())
    return asyncio.run(run(parser.parse_args(words)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
