"""Records into Kafka from an event loop that never waits for Kafka.

One synchronous `confluent_kafka.Producer`, called from the event loop alone. A record waits at least until the loop has
done what it woke up for, and under load some milliseconds (`gathering`); then all that gathered goes to librdkafka,
which lingers just as long as that takes. While anything is unanswered the loop looks for delivery reports once a
millisecond, and settles each record (`outgoing`) in the midst of its report: none is ever delivered to another thread,
not even while the producer closes.

A thread that waits in `poll` was refused: librdkafka's binding takes the GIL anew for every report, and the thread
alone was a sixth of what producing costs. `produce_batch` was refused: it knows no headers.
`AIOProducer` too: it drops headers, and a steady trickle keeps postponing its own flush.

A client that has lost its brokers for good (`client_statistics`) gives way to a new one. What it still holds fails, as
it would by its deadline.

    new ──start()──► running ──close()──► closing ──► closed
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tocsin_core import metrics
from tocsin_core.client_statistics import LostWatch, read_statistics
from tocsin_core.connection import Code, check_files, choose_cause, translate, translate_error, translate_exception
from tocsin_core.errors import KafkaFailure, KafkaUnavailable, OutcomeUnknown
from tocsin_core.gathering import FULL_RECORDS, Gathering
from tocsin_core.logging import get_logger
from tocsin_core.outgoing import ANY_PARTITION, OVERHEAD_BYTES, Content, Headers, Outgoing, Stored
from tocsin_core.producer_config import build_producer_config
from tocsin_core.settings import KafkaSettings

LOOK_SECONDS = 0.001
REST_SECONDS = 0.1
"""How often the loop looks for reports while something is unanswered, and for news of the connection else."""
REPORTS_PER_TURN = 200
"""How many reports are taken before the loop goes round. A broker that comes back answers for thousands of records at
once, each with a client who waits, and they would keep everybody else waiting for tens of milliseconds."""
PURGE_SECONDS = 2.0
METADATA_TIMEOUT_SECONDS = 5.0
CERTAINLY_NOT_STORED = frozenset(
    {
        *(Code.UNKNOWN_PARTITION, Code.UNKNOWN_TOPIC, Code.LOCAL_QUEUE_FULL, Code.TIMED_OUT_IN_QUEUE),
        *(Code.PURGED_IN_QUEUE, Code.UNKNOWN_TOPIC_OR_PARTITION, Code.LEADER_NOT_AVAILABLE, Code.NOT_LEADER),
        *(Code.MESSAGE_TOO_LARGE, Code.INVALID_TOPIC, Code.RECORD_LIST_TOO_LARGE, Code.NOT_ENOUGH_REPLICAS),
        *(Code.TOPIC_AUTHORIZATION, Code.CLUSTER_AUTHORIZATION, Code.TRANSACTIONAL_ID_AUTHORIZATION),
        *(Code.INVALID_RECORD, Code.POLICY_VIOLATION),
    }
)
"""Reports that say so. After any other, such as a connection that broke, the broker may have stored the record."""

_log = get_logger(__name__)


class _EnoughForNow(Exception):
    """Ends a `poll` from within a report: librdkafka keeps the others, in no particular order (`rd_kafka_yield`)."""


class RecordProducer:
    """Sends records with acks=all. All methods belong to the event loop that called `start`."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        self._settings = settings
        self._max_record_bytes = settings.message_max_bytes + OVERHEAD_BYTES
        self._max_in_flight_bytes = settings.queue_max_kbytes * 1_024 + OVERHEAD_BYTES
        self._client_id = client_id
        self._producer: Producer | None = None
        self._given_up: Producer | None = None  # while it has records to report on
        self._lost_watch = LostWatch()
        self._is_running = False
        self._is_closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_resting = True
        self._is_turn_due = False
        self._reports = 0  # in this turn
        self._gathering = Gathering(time.monotonic())
        self._gathered: deque[Outgoing] = deque()
        self._order: deque[Outgoing] = deque()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._stored = 0  # since they were last counted
        self._has_connected = False
        self._connection_failure: KafkaFailure | None = None
        self._fatal: KafkaFailure | None = None

    async def start(self) -> None:
        """Connect in the background. Raise SettingsError for an unreadable file, KafkaFailure for unusable settings.

        An unreachable broker is not an error here: it may come, and until then `send` fails by its deadline.
        """
        check_files(self._settings.tls)
        self._loop = asyncio.get_running_loop()
        self._producer = self._open()
        # Asked when somebody looks, not told for every record.
        metrics.producer_in_flight.set_function(lambda: self._in_flight)
        metrics.producer_oldest_seconds.set_function(lambda: self.oldest_in_flight_seconds)
        self._is_running = True
        self._look_again()

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        *,
        partition: int | None = None,
    ) -> Outgoing:
        """Enqueue a record and return it; it is settled, and if need be with a KafkaFailure, within the deadline.

        Without a `partition` the key chooses one. Raise QueueFull, RecordRejected or the producer's fatal KafkaFailure
        at once; then nothing was enqueued. What only librdkafka can tell settles the record.
        With `producer_return_successes: false` it is settled on return, and the record may still be lost.
        """
        number = ANY_PARTITION if partition is None else partition
        content = key, value, headers
        record = Outgoing(topic, content, number, _weigh(content), time.monotonic())
        self._enqueue([record], record.size_bytes, record.size_bytes)
        return record

    def send_all(self, topic: str, contents: Iterable[Content]) -> list[Outgoing]:
        """Enqueue many records as `send` does one, or, when it raises, none of them."""
        now = time.monotonic()
        records = [Outgoing(topic, content, ANY_PARTITION, _weigh(content), now) for content in contents]
        if records:
            sizes = [record.size_bytes for record in records]
            self._enqueue(records, sum(sizes), max(sizes))
        return records

    async def count_partitions(self, topic: str) -> int:
        """Return how many partitions a topic has. Raise TopicMissing, NotAuthorized or another KafkaFailure."""
        if self._producer is None:
            raise _not_running()
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
        self._forget_answered()
        return time.monotonic() - self._order[0].sent_at if self._order else 0.0

    @property
    def is_healthy(self) -> bool:
        """Return whether records can be acknowledged at all: not whether Kafka is there, which passes by itself."""
        return self._is_running

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
        self._is_closing, self._is_running = True, False  # send() refuses; the loop goes on looking for reports
        self._hand_over()
        await self._wait_for_answers(timeout_seconds)
        undelivered = self._in_flight
        if undelivered:
            producer.purge()
            await self._wait_for_answers(PURGE_SECONDS)
        self._producer = None
        if self._timer:
            self._timer.cancel()
        self._fail_rest()
        return undelivered

    def _open(self) -> Producer:
        config = build_producer_config(self._settings, client_id=self._client_id)
        callbacks = {"error_cb": self._on_error, "stats_cb": self._on_statistics}
        try:
            return Producer({**config, **callbacks}, logger=logging.getLogger("tocsin.librdkafka"))
        except KafkaException as error:
            raise translate_exception(error) from error

    def _replace(self, lost: Producer) -> None:
        _log.warning("the Kafka client knows no broker any more: going on with a new one", unanswered=len(lost))
        self._producer, self._given_up = self._open(), lost
        self._lost_watch.begin_again()
        lost.purge(blocking=False)

    def _poll_given_up(self, lost: Producer) -> None:
        try:
            lost.poll(0)
        except _EnoughForNow:
            self._arrange_turn()
        if not len(lost):
            self._given_up = None
            threading.Thread(target=lost.close, name="kafka-producer-close", daemon=True).start()

    def _break(self, failure: KafkaFailure) -> None:
        """Take note that nothing can be acknowledged any more."""
        self._fatal, self._is_running = failure, False

    async def _wait_for_answers(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while self._in_flight and time.monotonic() < deadline:  # noqa: ASYNC110 - reports come where one looks for them
            await asyncio.sleep(LOOK_SECONDS)

    def _enqueue(self, records: list[Outgoing], size_bytes: int, largest_bytes: int) -> None:
        """Take all of them, or raise: first of all what librdkafka would, which has not seen what gathers here."""
        if not self._is_running:
            raise self._fatal or _not_running()
        if largest_bytes > self._max_record_bytes:
            raise _too_large(largest_bytes - OVERHEAD_BYTES, self._settings)
        in_flight, in_flight_bytes = self._in_flight + len(records), self._in_flight_bytes + size_bytes
        if in_flight > self._settings.queue_max_messages or in_flight_bytes > self._max_in_flight_bytes:
            raise _queue_full(self._settings)
        self._in_flight, self._in_flight_bytes = in_flight, in_flight_bytes
        self._order.extend(records)
        self._gathered.extend(records)
        if len(self._gathered) >= FULL_RECORDS:  # the loop may be busy for long: let Kafka work meanwhile
            self._hand_over()
        else:
            self._arrange_turn()
        if not self._settings.producer_return_successes:
            for record in records:
                record.settle(Stored(-1, -1))

    def _arrange_turn(self) -> None:
        if not self._is_turn_due:
            self._is_turn_due = True
            self._loop.call_soon(self._take_arranged_turn)

    def _take_arranged_turn(self) -> None:
        self._is_turn_due = False
        self._turn()

    def _forget_answered(self) -> None:
        while self._order and self._order[0].is_answered:
            self._order.popleft()

    def _look_again(self) -> None:
        """Take a turn, and arrange for the next."""
        self._is_resting = False
        try:
            if not self._is_turn_due:
                self._turn()
        finally:
            self._schedule(LOOK_SECONDS if self._in_flight else REST_SECONDS)

    def _schedule(self, seconds: float) -> None:
        if self._producer is None:
            return
        if self._timer:
            self._timer.cancel()
        self._is_resting = seconds == REST_SECONDS
        self._timer = self._loop.call_later(seconds, self._look_again)

    def _turn(self) -> None:
        """Settle what was reported, then hand over what has gathered, if it is time."""
        producer = self._producer
        if producer is None:
            return
        self._reports = 0
        try:
            producer.poll(0)
        except _EnoughForNow:
            self._arrange_turn()
        except KafkaException as error:  # confluent_kafka raises what is fatal here, instead of calling error_cb
            self._break(translate_exception(error))
        if self._given_up is not None:
            self._poll_given_up(self._given_up)
        elif self._is_running and self._lost_watch.is_lost(time.monotonic()):
            self._replace(producer)
        if self._stored:  # together, because to count costs as much as to settle
            metrics.produced["stored"].inc(self._stored)
            self._stored = 0
        if self._gathered and self._is_due():
            self._hand_over()
        if self._in_flight and self._is_resting:
            self._schedule(LOOK_SECONDS)

    def _is_due(self) -> bool:
        gathered = len(self._gathered)
        return self._gathering.is_due(
            gathered,
            self._in_flight - gathered,
            first_at=self._gathered[0].sent_at,
            last_at=self._gathered[-1].sent_at,
            now=time.monotonic(),
        )

    def _hand_over(self) -> None:
        producer = self._producer
        if producer is None:
            return
        self._forget_answered()
        self._gathering.count(len(self._gathered), now=time.monotonic())
        while self._gathered:
            record = self._gathered.popleft()
            key, value, headers = record.take_content()
            report = partial(self._on_delivery, record)
            try:
                producer.produce(record.topic, value, key, record.partition, headers=list(headers), on_delivery=report)
            except BufferError:
                self._fail(record, _queue_full(self._settings))
            except KafkaException as error:
                self._fail(record, translate_exception(error))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one record is told its sender alone
                self._fail(record, error)

    def _on_delivery(self, record: Outgoing, error: KafkaError | None, message: Message) -> None:
        """Take a report, in the midst of `poll`."""
        if error:
            self._fail(record, self._explain(error))
        else:
            self._stored += 1
            self._settle(record, Stored(message.partition() or 0, message.offset() or 0))
        self._reports += 1
        if self._reports == REPORTS_PER_TURN:
            raise _EnoughForNow

    def _fail(self, record: Outgoing, failure: Exception) -> None:
        metrics.produced["unknown" if isinstance(failure, OutcomeUnknown) else "refused"].inc()
        self._settle(record, failure)

    def _settle(self, record: Outgoing, outcome: Stored | Exception) -> None:
        record.is_answered = True
        self._in_flight -= 1
        self._in_flight_bytes -= record.size_bytes
        record.settle(outcome)

    def _fail_rest(self) -> None:
        order, self._order = self._order, deque()
        for record in order:
            if not record.is_answered:
                self._fail(record, translate(Code.PURGED_IN_FLIGHT, "the producer was closed before Kafka answered"))

    def _explain(self, error: KafkaError) -> KafkaFailure:
        """Return our error; a record that timed out before any broker was ever reached certainly was not stored."""
        failure, cause = translate_error(error), self._connection_failure
        if failure.code in CERTAINLY_NOT_STORED:
            return failure
        if failure.code != Code.MESSAGE_TIMED_OUT or cause is None:
            return OutcomeUnknown(str(failure), advice=failure.advice, code=failure.code)
        if self._has_connected:
            return OutcomeUnknown(f"{failure}; meanwhile: {cause}", advice=failure.advice, code=failure.code)
        return type(cause)(f"not sent within the deadline: {cause}", advice=cause.advice, code=cause.code)

    def _on_error(self, error: KafkaError) -> None:
        failure = translate_error(error)
        if error.fatal():
            self._break(failure)
        self._connection_failure = choose_cause(self._connection_failure, failure)

    def _on_statistics(self, text: str) -> None:
        statistics = read_statistics(text)
        self._lost_watch.note(statistics, time.monotonic())
        if statistics.is_connected:
            self._has_connected = True
            self._connection_failure = None


def _weigh(content: Content) -> int:
    """Return about how much memory a record takes."""
    key, value, _ = content
    return len(key or b"") + len(value or b"") + OVERHEAD_BYTES


def _not_running() -> KafkaUnavailable:
    return KafkaUnavailable("the producer is not running", advice="start() it, or it is closed already")


def _too_large(payload_bytes: int, settings: KafkaSettings) -> KafkaFailure:
    return translate(Code.MESSAGE_TOO_LARGE, f"{payload_bytes} bytes, more than {settings.message_max_bytes}")


def _queue_full(settings: KafkaSettings) -> KafkaFailure:
    bounds = f"{settings.queue_max_messages} records or {settings.queue_max_kbytes} kB"
    return translate(Code.LOCAL_QUEUE_FULL, f"the send queue is full ({bounds})")
