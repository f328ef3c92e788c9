"""Records into Kafka from an event loop that never waits for Kafka.

One synchronous `confluent_kafka.Producer`, called from the event loop alone. A record waits at least until the loop has
done what it woke up for, and under load some milliseconds (`gathering`); then all that gathered goes to librdkafka,
which lingers just as long as that takes. While anything is unanswered the loop looks for delivery reports once a
millisecond.

A thread that waits in `poll` was refused: librdkafka's binding takes the GIL anew for every report, and the thread
alone was a sixth of what producing costs. `produce_batch` was refused: it knows no headers.
`AIOProducer` too: it drops headers, and a steady trickle keeps postponing its own flush.

    new ──start()──► running ──close()──► closing ──► closed
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tocsin_core import metrics
from tocsin_core.connection import (
    Code,
    build_client_config,
    check_files,
    choose_cause,
    translate,
    translate_error,
    translate_exception,
)
from tocsin_core.errors import KafkaFailure, KafkaUnavailable, OutcomeUnknown
from tocsin_core.gathering import FULL_RECORDS, Gathering
from tocsin_core.settings import KafkaSettings

LINGER_MS = 0.5
"""How long librdkafka waits for the rest of what is handed over together, about as long as handing it over takes; the
waiting that pays was done before."""
LOOK_SECONDS = 0.001
REST_SECONDS = 0.1
"""How often the loop looks for reports while something is unanswered, and for news of the connection else."""
STATISTICS_INTERVAL_MS = 500
TOPIC_MISSING_AFTER_MS = 3_000
"""How long a topic may be unknown (metadata spreads) before records for it fail as TopicMissing."""
PURGE_SECONDS = 2.0
METADATA_TIMEOUT_SECONDS = 5.0
ANY_PARTITION = -1

OVERHEAD_BYTES = 512
"""What a record takes beside its key and value: headers, and librdkafka's and our own notes about it."""

Headers = Sequence[tuple[str, bytes | None]]


class Stored(NamedTuple):
    """Where the broker stored a record; both -1 when nobody waited for its answer (producer_return_successes false)."""

    partition: int
    offset: int


class _Broker(msgspec.Struct):
    state: str


class _Statistics(msgspec.Struct):
    """What is read of librdkafka's statistics, which tell much of every partition."""

    brokers: dict[str, _Broker]


class _Record(NamedTuple):
    """A record that waits to be handed to librdkafka."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]
    partition: int
    pending: _Pending


class _Pending:
    """A record on its way."""

    __slots__ = ("future", "is_ended", "sent_at", "size_bytes")

    def __init__(self, future: asyncio.Future[Stored], sent_at: float, size_bytes: int) -> None:
        self.future = future
        self.sent_at = sent_at
        self.size_bytes = size_bytes
        self.is_ended = False


class RecordProducer:
    """Sends records with acks=all. All methods belong to the event loop that called `start`."""

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._loop: asyncio.AbstractEventLoop | None = None
        self._producer: Producer | None = None
        self._is_closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_resting = True
        self._is_turn_due = False
        self._gathering = Gathering(time.monotonic())
        self._gathered: deque[_Record] = deque()
        self._last_at = 0.0
        self._order: deque[_Pending] = deque()
        self._reports: deque[tuple[_Pending, Stored | KafkaFailure]] = deque()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._has_connected = False
        self._connection_failure: KafkaFailure | None = None
        self._fatal: KafkaFailure | None = None

    async def start(self) -> None:
        """Connect in the background. Raise SettingsError for an unreadable file, KafkaFailure for unusable settings.

        An unreachable broker is not an error here: it may come, and until then `send` fails by its deadline.
        """
        check_files(self._settings.tls)
        self._loop = asyncio.get_running_loop()
        config = build_producer_config(self._settings, client_id=self._client_id)
        callbacks = {"error_cb": self._on_error, "stats_cb": self._on_statistics}
        try:
            self._producer = Producer({**config, **callbacks}, logger=logging.getLogger("tocsin.librdkafka"))
        except KafkaException as error:
            raise translate_exception(error) from error
        # Asked when somebody looks, not told for every record.
        metrics.producer_in_flight.set_function(lambda: self._in_flight)
        metrics.producer_oldest_seconds.set_function(lambda: self.oldest_in_flight_seconds)
        self._look_again()

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        *,
        partition: int | None = None,
    ) -> asyncio.Future[Stored]:
        """Enqueue a record and return the future of its storage, which fails with a KafkaFailure within the deadline.

        Without a `partition` the key chooses one. Raise QueueFull, RecordRejected or the producer's fatal KafkaFailure
        at once; then nothing was enqueued. What only librdkafka can tell fails the future.
        With `producer_return_successes: false` the future is done on return, and the record may still be lost.
        """
        if self._producer is None or self._loop is None or self._is_closing:
            raise KafkaUnavailable("the producer is not running", advice="start() it, or it is closed already")
        if self._fatal:
            raise self._fatal
        payload_bytes = len(key or b"") + len(value or b"")
        self._check_size(payload_bytes)
        self._last_at = time.monotonic()
        pending = _Pending(self._loop.create_future(), self._last_at, payload_bytes + OVERHEAD_BYTES)
        number = ANY_PARTITION if partition is None else partition
        self._gathered.append(_Record(topic, key, value, list(headers), number, pending))
        self._order.append(pending)
        self._in_flight += 1
        self._in_flight_bytes += pending.size_bytes
        if len(self._gathered) >= FULL_RECORDS:  # the loop may be busy for long: let Kafka work meanwhile
            self._hand_over(self._producer)
        elif not self._is_turn_due:
            self._is_turn_due = True
            self._loop.call_soon(self._turn)
        if not self._settings.producer_return_successes:
            pending.future.set_result(Stored(-1, -1))
        return pending.future

    async def count_partitions(self, topic: str) -> int:
        """Return how many partitions a topic has. Raise TopicMissing, NotAuthorized or another KafkaFailure."""
        if self._producer is None:
            raise KafkaUnavailable("the producer is not running", advice="start() it, or it is closed already")
        try:
            metadata = await asyncio.to_thread(self._producer.list_topics, topic, METADATA_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise translate_exception(error) from error
        found = metadata.topics[topic]
        if found.error is not None:
            raise translate_error(found.error)
        return len(found.partitions)

    @property
    def in_flight(self) -> int:
        """Return how many records wait for the broker's answer."""
        return self._in_flight

    @property
    def in_flight_bytes(self) -> int:
        """Return about how much memory they take."""
        return self._in_flight_bytes

    @property
    def oldest_in_flight_seconds(self) -> float:
        """Return how long the oldest of them has waited; 0 when there is none."""
        self._forget_ended()
        return time.monotonic() - self._order[0].sent_at if self._order else 0.0

    @property
    def is_healthy(self) -> bool:
        """Return whether records can be acknowledged at all: not whether Kafka is there, which passes by itself."""
        return self._fatal is None and self._producer is not None and not self._is_closing

    @property
    def connection_failure(self) -> KafkaFailure | None:
        """Return what keeps the producer from the brokers at this moment, or None while a broker is connected."""
        return self._connection_failure

    async def close(self, timeout_seconds: float) -> int:
        """Wait for outstanding records, at most `timeout_seconds`, then stop; return how many were not delivered.

        Those fail: with KafkaUnavailable if they never left, with OutcomeUnknown if they were on the wire.
        """
        producer = self._producer
        if producer is None or self._is_closing:
            return 0
        self._is_closing = True  # from here on send() refuses; the loop goes on looking for reports
        self._hand_over(producer)
        await asyncio.to_thread(producer.flush, timeout_seconds)
        self._drain()
        undelivered = self._in_flight
        if undelivered:
            producer.purge()
            await asyncio.to_thread(producer.flush, PURGE_SECONDS)
        self._drain()
        self._producer = None
        if self._timer:
            self._timer.cancel()
        self._fail_rest()
        return undelivered

    def _check_size(self, payload_bytes: int) -> None:
        """Raise what librdkafka would say, which has not seen what gathers here."""
        settings = self._settings
        if payload_bytes > settings.message_max_bytes:
            raise translate(Code.MESSAGE_TOO_LARGE, f"{payload_bytes} bytes, more than {settings.message_max_bytes}")
        is_full = self._in_flight >= settings.queue_max_messages
        if is_full or self._in_flight_bytes + payload_bytes > settings.queue_max_kbytes * 1_024:
            raise _queue_full(settings)

    def _forget_ended(self) -> None:
        while self._order and self._order[0].is_ended:
            self._order.popleft()

    def _look_again(self) -> None:
        """Take a turn, and arrange for the next."""
        self._is_resting = False
        try:
            self._turn()
        finally:
            self._schedule(LOOK_SECONDS if self._in_flight else REST_SECONDS)

    def _schedule(self, seconds: float) -> None:
        if self._producer is None or self._loop is None:
            return
        if self._timer:
            self._timer.cancel()
        self._is_resting = seconds == REST_SECONDS
        self._timer = self._loop.call_later(seconds, self._look_again)

    def _turn(self) -> None:
        """Settle what was reported, then hand over what has gathered, if it is time."""
        self._is_turn_due = False
        producer = self._producer
        if producer is None:
            return
        try:
            producer.poll(0)
        except KafkaException as error:  # confluent_kafka raises what is fatal here, instead of calling error_cb
            self._fatal = translate_exception(error)
        self._drain()
        if self._gathered and self._is_due():
            self._hand_over(producer)
        if self._in_flight and self._is_resting:
            self._schedule(LOOK_SECONDS)

    def _is_due(self) -> bool:
        gathered, first = len(self._gathered), self._gathered[0].pending
        return self._gathering.is_due(
            gathered,
            self._in_flight - gathered,
            first_at=first.sent_at,
            last_at=self._last_at,
            now=time.monotonic(),
        )

    def _hand_over(self, producer: Producer) -> None:
        self._forget_ended()
        self._gathering.count(len(self._gathered), now=time.monotonic())
        while self._gathered:
            record = self._gathered.popleft()
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    headers=record.headers,
                    on_delivery=partial(self._on_delivery, record.pending),
                )
            except BufferError:
                self._settle(record.pending, _queue_full(self._settings))
            except KafkaException as error:
                self._settle(record.pending, translate_exception(error))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one record is told its sender alone
                self._settle(record.pending, error)

    def _on_delivery(self, pending: _Pending, error: KafkaError | None, message: Message) -> None:
        """Take a report: in the loop, or while closing in the thread that flushes. The deque is all that they share."""
        outcome = self._explain(error) if error else Stored(message.partition() or 0, message.offset() or 0)
        self._reports.append((pending, outcome))

    def _drain(self) -> None:
        """Settle what was reported."""
        stored = 0
        while self._reports:
            pending, outcome = self._reports.popleft()
            stored += isinstance(outcome, Stored)
            self._settle(pending, outcome)
        if stored:
            metrics.produced["stored"].inc(stored)

    def _settle(self, pending: _Pending, outcome: Stored | Exception) -> None:
        pending.is_ended = True
        self._in_flight -= 1
        self._in_flight_bytes -= pending.size_bytes
        if isinstance(outcome, Stored):
            if not pending.future.done():  # else the caller went away, or never waited
                pending.future.set_result(outcome)
            return
        metrics.produced["unknown" if isinstance(outcome, OutcomeUnknown) else "refused"].inc()
        if not pending.future.done():
            pending.future.set_exception(outcome)

    def _fail_rest(self) -> None:
        for pending in self._order:
            if not pending.is_ended:
                self._settle(pending, translate(Code.PURGED_IN_FLIGHT, "the producer was closed before Kafka answered"))
        self._order.clear()

    def _explain(self, error: KafkaError) -> KafkaFailure:
        """Return our error; a record that timed out before any broker was ever reached certainly was not stored."""
        failure, cause = translate_error(error), self._connection_failure
        if failure.code != Code.MESSAGE_TIMED_OUT or cause is None:
            return failure
        if self._has_connected:
            return OutcomeUnknown(f"{failure}; meanwhile: {cause}", advice=failure.advice, code=failure.code)
        return type(cause)(f"not sent within the deadline: {cause}", advice=cause.advice, code=cause.code)

    def _on_error(self, error: KafkaError) -> None:
        failure = translate_error(error)
        if error.fatal():
            self._fatal = failure
        self._connection_failure = choose_cause(self._connection_failure, failure)

    def _on_statistics(self, text: str) -> None:
        brokers = msgspec.json.decode(text, type=_Statistics).brokers.values()
        if any(broker.state == "UP" for broker in brokers):
            self._has_connected = True
            self._connection_failure = None


def build_producer_config(settings: KafkaSettings, *, client_id: str) -> dict[str, Any]:
    """Return librdkafka's properties for a producer that loses and reorders nothing it acknowledged. Pure."""
    timeout_ms = max(1, int(settings.delivery_timeout_seconds * 1_000))
    return {
        **build_client_config(settings),
        "client.id": client_id,
        "acks": "all",
        "enable.idempotence": settings.retries > 0,  # without retries there is nothing to deduplicate
        "retries": settings.retries,
        "retry.backoff.ms": 100,
        "retry.backoff.max.ms": 2_000,
        "delivery.timeout.ms": timeout_ms,
        "request.timeout.ms": timeout_ms,
        "linger.ms": LINGER_MS,
        "partitioner": "murmur2_random",  # what Java clients compute
        "compression.type": "lz4",
        "message.max.bytes": settings.message_max_bytes,
        "queue.buffering.max.messages": settings.queue_max_messages,
        "queue.buffering.max.kbytes": settings.queue_max_kbytes,
        "topic.metadata.propagation.max.ms": TOPIC_MISSING_AFTER_MS,
        "statistics.interval.ms": STATISTICS_INTERVAL_MS,
    }


def _queue_full(settings: KafkaSettings) -> KafkaFailure:
    bounds = f"{settings.queue_max_messages} records or {settings.queue_max_kbytes} kB"
    return translate(Code.LOCAL_QUEUE_FULL, f"the send queue is full ({bounds})")
