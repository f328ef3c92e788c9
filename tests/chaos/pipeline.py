"""One pipeline under test: its topics, store, receiving server and consumers, and what became of its messages."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import httpx
import msgspec
from confluent_kafka import Consumer, Message, TopicPartition

from chaos.ground import HOST, LIBRDKAFKA, Store, set_session_timeout
from chaos.load import Load
from chaos.manners import Manners
from chaos.oracle import Breach, Delivery, Evidence, Findings, Promise, Receipt, examine, judge
from chaos.process import Process
from chaos.receiver import read_log
from tocsin_core.admin import KafkaAdmin
from tocsin_core.codec import decode
from tocsin_core.errors import KafkaUnavailable
from tocsin_core.kafka_message import read_message
from tocsin_core.message import Record
from tocsin_core.retry import build_tiers
from tocsin_core.settings import KafkaConnection

DRAIN_SECONDS = 10.0
START_SECONDS = 60.0
EXIT_SECONDS = 40.0
POSTED = tuple(f"posted-{number}" for number in range(12))
"""Recipients who get theirs through ingestion, if any."""
RETRY_DELAYS_SECONDS = (1, 3)
RETRY_PARTITIONS = 4
"""Not as many as the topic has, so that a record's way leads through another consumer."""
STARTED = b'"event":"consumer started"'
"""What a consumer says when it can be told to stop in an orderly way. Judging never reads its log."""
PATIENCE_SECONDS = 45.0
"""How long nothing may arrive before what is missing counts as lost: longer than any lease, backoff or restart."""
LOOK_SECONDS = 0.2


FRIENDLY = Manners(min_delay_seconds=0.02, max_delay_seconds=0.15)


@dataclass(frozen=True)
class Shape:
    """How a pipeline is built. Small on purpose: many recipients, few messages, little time."""

    protocol: Literal["consumer", "classic"] = "consumer"
    has_store: bool = True
    members: int = 3
    partitions: int = 6
    recipients: int = 100
    per_second: float = 40.0
    channels: tuple[str, ...] = ("hook",)
    concurrency: int = 8
    timeout_seconds: float = 2.0
    session_seconds: float = 6.0
    max_attempts: int = 8
    ordering: Literal["Relaxed", "Strict"] = "Relaxed"
    manners: Manners = FRIENDLY


@dataclass
class Outcome:
    """What the oracle found, and every way in which the promise was broken."""

    findings: Findings
    breaches: list[Breach]
    receipts: list[Receipt] = field(repr=False)


class Patience:
    """Lasts for so many seconds after the last change of what it is shown."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._shown: object = None
        self._changed_at = time.monotonic()

    def lasts(self, shown: object) -> bool:
        """Return whether what is shown changed not too long ago."""
        if shown != self._shown:
            self._shown, self._changed_at = shown, time.monotonic()
        return time.monotonic() - self._changed_at < self._seconds


class Pipeline:
    """A pipeline with processes to be mistreated. Use it as `async with`."""

    def __init__(self, address: str, directory: Path, shape: Shape, *, bug: str = "") -> None:
        self.shape = shape
        self.topic = f"chaos-{directory.name}-{secrets.token_hex(4)}"
        self.members: list[Process] = []
        self.remarks: list[str] = []
        """What went wrong beside the messages: exit codes, offsets left behind."""
        self.load = Load(address, self.topic, recipients=shape.recipients, channels=shape.channels)
        self.store = Store(directory / "store", f"chaos/{self.topic}") if shape.has_store else None
        self._address = address
        self._admin = KafkaAdmin(KafkaConnection(brokers=[address]), client_id="chaos")
        self._directory = directory
        self._bug = bug
        self._started = 0
        self._port = 0
        self._receipts: list[Receipt] = []
        self._read_until = 0
        self._closing = AsyncExitStack()
        directory.mkdir(parents=True, exist_ok=True)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._closing.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    async def start_process(self, *words: str) -> Process:
        """Start a consumer process and return when it can be told to stop; `words` go to `chaos.consumer`."""
        self._started += 1
        words = ("--protocol", self.shape.protocol, *(("--bug", self._bug) if self._bug else ()), *words)
        config = ("--config", str(self._directory / "config.yaml"))
        process = Process("chaos.consumer", (*config, *words), self._directory / f"consumer-{self._started}.log")
        await process.start()
        self._closing.push_async_callback(process.kill)
        await process.wait_for_output(STARTED, timeout_seconds=START_SECONDS)
        return process

    async def start_ingestion(self) -> str:
        """Start an ingestion process and return its address once it listens."""
        log_path = self._directory / "ingestion.log"
        process = Process("tocsin_cli.__main__", ("ingest", "--config", str(self._directory / "config.yaml")), log_path)
        await process.start()
        self._closing.push_async_callback(process.kill)
        await process.wait_for_output(b'"event":"ingestion listening"', timeout_seconds=START_SECONDS)
        lines = (json.loads(line) for line in log_path.read_bytes().splitlines() if line.startswith(b"{"))
        port = next(line["port"] for line in lines if line["event"] == "ingestion listening")
        return f"http://{HOST}:{port}"

    async def add_member(self, *words: str) -> None:
        """Start one more consumer; should it end by itself, that is remarked and it is started again, as in a pod."""
        process = await self.start_process(*words)
        self.members.append(process)
        watch = asyncio.create_task(self._watch(process))
        self._closing.callback(watch.cancel)

    async def scale(self, count: int) -> None:
        """Start or gracefully end processes until there are so many; those that go, go at once, as pods do."""
        await asyncio.gather(*(self.add_member() for _ in range(count - len(self.members))))
        await asyncio.gather(*(self.retire(each) for each in self.members[count:]))

    async def retire(self, member: Process) -> None:
        """End a member by SIGTERM; a hand-over that does not end in an orderly way is remarked."""
        self.members.remove(member)
        code = await member.terminate(timeout_seconds=EXIT_SECONDS)
        if code != 0:
            self.remarks.append(f"{member.log_path.name} ended with exit code {code} on SIGTERM")

    async def replace(self, member: Process) -> None:
        """Kill a member and start it again, as kubelet would."""
        self.members.remove(member)
        await member.kill()
        await self.add_member()

    async def _watch(self, member: Process) -> None:
        code = await member.wait()
        if member in self.members:
            self.remarks.append(f"{member.log_path.name} ended by itself with exit code {code}")
            self.members.remove(member)
            await self.add_member()

    async def set_manners(self, **changes: Any) -> None:
        """Change how the receiving server answers from now on."""
        manners = msgspec.structs.replace(self.shape.manners, **changes)
        async with httpx.AsyncClient() as client:
            await client.put(f"http://{HOST}:{self._port}/manners", content=msgspec.json.encode(manners))

    def read_receipts(self) -> list[Receipt]:
        """Return all receipts so far."""
        news, self._read_until = read_log(self._log_path, start=self._read_until)
        self._receipts += news
        return self._receipts

    async def wait_for(self, is_enough: Callable[[list[Receipt]], bool], *, timeout_seconds: float = 60.0) -> None:
        """Return once the receipts are enough. Raise TimeoutError if that takes too long."""
        async with asyncio.timeout(timeout_seconds):
            while not is_enough(self.read_receipts()):  # noqa: ASYNC110 - another process writes the file
                await asyncio.sleep(LOOK_SECONDS)

    async def wait_until_ended(self) -> set[Delivery]:
        """Wait until everything was received or dead-lettered, or nothing more comes; return the dead letters."""
        owed = {Delivery(each.id, channel) for each in self.load.sent for channel in each.channels}
        dead_letters: set[Delivery] = set()
        patience = Patience(PATIENCE_SECONDS)
        while patience.lasts(missing := len(owed - self._find_taken() - dead_letters)) and missing:
            await asyncio.sleep(LOOK_SECONDS)
            if self.shape.manners.refused:
                dead_letters = await self._read_dead_letters()
        return dead_letters

    async def settle(self, promise: Promise) -> Outcome:
        """Wait until everything has ended and is committed, end the processes gracefully, and judge."""
        dead_letters = await self.wait_until_ended()
        await self._wait_until_committed()
        await self.scale(0)
        self.remarks += await self._wait_until_committed()
        evidence = Evidence(
            sent=self.load.sent,
            receipts=self.read_receipts(),
            dead_letters=dead_letters | await self._read_dead_letters(),
            uncertain=await self.store.count_uncertain() if self.store else 0,
        )
        findings = examine(evidence, promise)
        breaches = [*judge(findings, promise), *(Breach(remark) for remark in self.remarks)]
        return Outcome(findings, breaches, self.read_receipts())

    def _find_taken(self) -> set[Delivery]:
        return {each.delivery for each in self.read_receipts() if each.is_taken}

    async def _wait_until_committed(self) -> list[str]:
        """Wait until the group has finished what it was handed twice; before that a duplicate may still come.

        Return what it left behind all the same.
        """
        patience = Patience(PATIENCE_SECONDS)
        while patience.lasts(left := await self._find_left_behind()) and left:  # noqa: ASYNC110 - Kafka tells nobody
            await asyncio.sleep(LOOK_SECONDS)
        return left

    async def _find_left_behind(self) -> list[str]:
        try:
            partitions = await self._admin.observe_group(self._group, self.topic)
        except KafkaUnavailable as error:  # a broker that was broken a moment ago, or a busy machine: look again
            return [f"nobody can say where the group stands: {error}"]
        return [
            f"partition {each.partition} was left at offset {each.committed} of {each.log_end}"
            for each in partitions
            if each.log_end > each.log_start and each.committed != each.log_end
        ]

    async def _read_dead_letters(self) -> set[Delivery]:
        return await asyncio.to_thread(self._read_dead_letter_topic)

    def _read_dead_letter_topic(self) -> set[Delivery]:
        consumer = Consumer({"bootstrap.servers": self._address, "group.id": "chaos-reader"}, logger=LIBRDKAFKA)
        try:
            partition = TopicPartition(f"{self.topic}.dlq", 0, 0)
            _, end = consumer.get_watermark_offsets(partition, 10)
            consumer.assign([partition])
            letters: list[Message] = []
            while len(letters) < end:
                letters += [each for each in consumer.consume(500, 0.2) if each.error() is None]
            records = [read_message(letter) for letter in letters]
            return {_read_delivery(each) for each in records if each.header("dlq-settled") is None}
        finally:
            consumer.close()

    async def _start(self) -> None:
        self._closing.push_async_callback(self._admin.close)
        await self._admin.create_topic(self.topic, partitions=self.shape.partitions)
        await self._admin.create_topic(f"{self.topic}.dlq", partitions=1)
        for tier in build_tiers(self.topic, RETRY_DELAYS_SECONDS):
            await self._admin.create_topic(tier.topic, partitions=RETRY_PARTITIONS)
        await set_session_timeout(self._address, self._group, self.shape.session_seconds)
        if self.store:
            await self.store.start()
            self._closing.push_async_callback(self.store.stop)
        self._port = await self._start_receiver()
        known = [*(str(number) for number in range(1, self.shape.recipients + 1)), *POSTED]
        users = {name: {"name": f"User {name}"} for name in known}
        (self._directory / "users.yaml").write_text(json.dumps(users), encoding="utf-8")
        (self._directory / "config.yaml").write_text(json.dumps(self._build_config()), encoding="utf-8")

    async def _start_receiver(self) -> int:
        self._log_path.touch()
        manners = msgspec.json.encode(self.shape.manners).decode()
        output = self._directory / "receiver.out"
        receiver = Process("chaos.receiver", ("--log", str(self._log_path), "--manners", manners), output)
        await receiver.start()
        self._closing.push_async_callback(receiver.kill)
        await receiver.wait_for_output(b"\n", timeout_seconds=START_SECONDS)
        return int(output.read_text())

    @property
    def _log_path(self) -> Path:
        return self._directory / "receipts.ndjson"

    @property
    def _group(self) -> str:
        return f"{self.topic}-group"

    def _build_config(self) -> dict[str, Any]:
        shape = self.shape
        channels: Iterable[dict[str, Any]] = (
            {
                "name": name,
                "type": "Webhook",
                "webhook": {"url": f"http://{HOST}:{self._port}/hook/{name}", "timeout_seconds": shape.timeout_seconds},
            }
            for name in shape.channels
        )
        return {
            "pipeline": {"namespace": "chaos", "name": self.topic},
            "kafka": {
                "brokers": self._address,
                "topic": self.topic,
                "consumer_group": self._group,
                "session_timeout_seconds": shape.session_seconds,
            },
            "users": {"file": str(self._directory / "users.yaml")},
            "consumer": {
                "channels": list(channels),
                "concurrency": shape.concurrency,
                "drain_seconds": DRAIN_SECONDS,
            },
            "delivery": {
                "max_attempts": shape.max_attempts,
                "ordering": shape.ordering,
                "retry_delays_seconds": list(RETRY_DELAYS_SECONDS),
            },
            "ingestion": {"host": HOST, "port": 0},
            "health": {"host": HOST, "port": 0},
            **({"redis": {"url": self.store.url}} if self.store else {}),
        }


def _read_delivery(letter: Record) -> Delivery:
    return Delivery(decode(letter.value).id, (letter.header("dlq-channel") or b"").decode())


def spread(chance: random.Random, count: int, *, first: float, last: float) -> list[float]:
    """Return `count` waits whose ends fall at random moments between `first` and `last`, in seconds."""
    moments = sorted(chance.uniform(first, last) for _ in range(count))
    return [moment - before for before, moment in zip([0.0, *moments], moments, strict=False)]
