"""What all contestants share: one broker, one store, one sink, and topics with the same content.

Records are encoded once, by Tocsin's own encoder, and produced as often as a topic of their own is needed: 12
partitions, a few thousand recipients drawn with a fixed seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Producer
from redis import Redis

from bench.errors import BenchError
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.embedded.valkey import EmbeddedValkey
from tocsin_core.admin import KafkaAdmin
from tocsin_core.codec import Encoded, encode, make_traceparent
from tocsin_core.message import Notification
from tocsin_core.settings import KafkaConnection

PARTITIONS = 12
RECIPIENTS = 5_000
SEED = 4
FLUSH_SECONDS = 60.0
HTTP_SECONDS = 30.0
QUEUE_FULL_WAIT_SECONDS = 0.05


def build_records(count: int, *, prefix: str) -> list[Encoded]:
    """Return what ingestion would have produced for so many notifications, to recipients drawn with a fixed seed."""
    draw = random.Random(SEED)
    now = datetime.now(UTC)
    return [
        encode(
            Notification(
                id=f"{prefix}-{number:08}",
                from_id="1",
                to_id=str(draw.randint(1, RECIPIENTS)),
                title=f"Order {number}",
                message=f"Your order {number} is on its way and will arrive between nine and twelve.",
            ),
            source="/pipelines/bench/delivery",
            traceparent=make_traceparent(),
            accepted_at=now,
        )
        for number in range(count)
    ]


class Sink:
    """The receiver, a process of its own; each run posts to a hook of its own, which has its own delay and count."""

    def __init__(self, url: str, process_id: int) -> None:
        self._url = url
        self.process_id = process_id

    def open(self, name: str, *, delay_ms: int, is_recorded: bool = False) -> str:
        """Make a hook and return its address."""
        address = f"{self._url}/hook/{name}"
        _ask(f"{address}?delay={delay_ms}ms{'&record=1' if is_recorded else ''}", "PUT")
        return address

    def count(self, name: str) -> int:
        """Return how many posts a hook has had."""
        return int(json.loads(_ask(f"{self._url}/hook/{name}"))["count"])

    def receipts(self, name: str) -> list[tuple[str, float]]:
        """Return the webhook-ids a recorded hook has had, each with its time in seconds since 1970, in their order."""
        lines = _ask(f"{self._url}/receipts/{name}").decode("ascii").splitlines()
        return [(words[0], int(words[1]) / 1e9) for words in (line.split() for line in lines)]


@dataclass(frozen=True)
class Stage:
    """The surroundings of every run."""

    kafka: EmbeddedKafka
    valkey: EmbeddedValkey
    sink: Sink
    binaries: Path
    folder: Path
    producer: Producer

    @property
    def users_file(self) -> Path:
        """The directory that holds every recipient."""
        return self.folder / "users.yaml"

    def create_topic(self, name: str) -> None:
        """Create a topic with twelve partitions."""
        asyncio.run(self._create_topic(name))

    async def _create_topic(self, name: str) -> None:
        admin = KafkaAdmin(KafkaConnection(brokers=[self.kafka.bootstrap_servers]), client_id="bench")
        await admin.create_topic(name, partitions=PARTITIONS)
        await admin.close()

    def produce(self, topic: str, records: Sequence[Encoded]) -> None:
        """Produce all records and return when they are stored. Raise BenchError if Kafka does not take them."""
        for record in records:
            self.send(topic, record)
        if self.producer.flush(FLUSH_SECONDS) != 0:
            raise BenchError(f"Kafka did not store the records of {topic} within {FLUSH_SECONDS:g} s")

    def send(self, topic: str, record: Encoded) -> None:
        """Hand one record to the producer, waiting while its queue is full."""
        while True:
            try:
                self.producer.produce(topic, record.value, record.key, headers=list(record.headers))
            except BufferError:
                self.producer.poll(QUEUE_FULL_WAIT_SECONDS)
            else:
                self.producer.poll(0)
                return

    def forget_claims(self) -> None:
        """Empty the store, so that no run stands on what another left."""
        with Redis.from_url(self.valkey.url) as client:
            client.flushall()


@contextlib.contextmanager
def running_stage(binaries: Path) -> Iterator[Stage]:
    """Start broker, store and sink; stop them all on leaving."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tocsin-bench-")))
        users = {str(number): {"name": f"User {number}"} for number in range(1, RECIPIENTS + 1)}
        (folder / "users.yaml").write_text(json.dumps(users), encoding="utf-8")
        kafka = stack.enter_context(EmbeddedKafka())
        valkey = stack.enter_context(EmbeddedValkey())
        sink = stack.enter_context(running_sink(binaries))
        producer = Producer(
            {"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 2}
        )
        stack.callback(producer.close)
        yield Stage(kafka, valkey, sink, binaries, folder, producer)


@contextlib.contextmanager
def running_sink(binaries: Path, *, host: str = "127.0.0.1") -> Iterator[Sink]:
    """Run the receiver on a free port of `host`, and kill it after the block."""
    words = [str(binaries / "sink"), "-listen", f"{host}:0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Sink(process.stdout.readline().strip(), process.pid)
        finally:
            process.kill()


def _ask(url: str, method: str = "GET") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=HTTP_SECONDS) as response:
        content: bytes = response.read()
        return content
