"""Records out of Kafka into an event loop, and committed offsets back: the poll thread.

One synchronous `confluent_kafka.Consumer` in one thread: it polls, hands each batch to the loop with a single
`call_soon_threadsafe`, has what the trackers say is finished committed every 200 ms (`committer`), and rests partitions
whose records are not worked off, without ever ceasing to poll. Rebalance callbacks run in this thread too, so a
hand-over can wait for the loop to finish its work, commit and fence without a deadlock. `AIOConsumer` and aiokafka were
refused: the first costs thirty times the CPU per record or awaits across threads in its callbacks, the second knows no
KIP-848.

    assigned: resume ──► on_revoke or stop: drain ──► commit ──► fence        on_lost: fence, commit nothing

A commit is an offset and, in its metadata, how far single channels are ahead of it (`commits`); both are read when a
partition is assigned, so that each channel goes on where it was.

`group.protocol=consumer` (KIP-848) is tried first, because only the broker knows whether it has it; a broker that
says no gets a classic member.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tocsin_core.assignment import Assignment, Batch, Sink, decide_pause
from tocsin_core.client_statistics import LostWatch, read_statistics
from tocsin_core.commits import Commit
from tocsin_core.committer import Committer, ask_committed
from tocsin_core.complaints import Complaints
from tocsin_core.connection import check_files, translate_error, translate_exception
from tocsin_core.consumer_config import (
    BATCH_RECORDS,
    CLOSE_SECONDS,
    HAND_OVER_MARGIN_SECONDS,
    MIN_POLL_INTERVAL_MS,
    SETTLE_SECONDS,
    GroupProtocol,
    build_consumer_config,
)
from tocsin_core.errors import KafkaFailure
from tocsin_core.kafka_message import consume, read_message
from tocsin_core.logging import get_logger
from tocsin_core.message import Record
from tocsin_core.settings import KafkaSettings
from tocsin_core.trouble import Trouble

POLL_SECONDS = 0.1
COMMIT_INTERVAL_SECONDS = 0.2
POLL_STALE_SECONDS = 30.0
PROBE_INTERVAL_SECONDS = 5.0
PROBE_TIMEOUT_SECONDS = 2.0
RESUME_TIMEOUT_SECONDS = 5.0
RESUME_AGAIN_SECONDS = 0.2
RESUME_SECONDS = MIN_POLL_INTERVAL_MS / 1_000
"""How long partitions may wait for word of where the group stands; then the group may have given up on this member."""
MIN_SHARE_RECORDS = 100

TopicAndPartition = tuple[str, int]

_log = get_logger(__name__)


class RecordConsumer:
    """One member of a consumer group."""

    def __init__(
        self,
        settings: KafkaSettings,
        sink: Sink,
        *,
        client_id: str,
        drain_seconds: float,
        max_held_records: int,
        max_held_bytes: int,
        group_protocol: Literal["auto", "consumer", "classic"] = "auto",
        on_refused: Callable[[str, KafkaFailure], None] = lambda _topic, _failure: None,
    ) -> None:
        """Prepare a member that reads the pipeline's topic; its partitions share the bounds on held records and bytes.

        `on_refused` is called on the event loop for each further topic that cannot be read.
        """
        self._settings = settings
        self._topics = self._wanted_topics = [settings.topic]
        self._on_refused = on_refused
        self._sink = sink
        self._client_id = client_id
        self._drain_seconds = drain_seconds
        self._max_held_records = max_held_records
        self._max_held_bytes = max_held_bytes
        self._may_fall_back = group_protocol == "auto"
        self.group_protocol: GroupProtocol = "classic" if group_protocol == "classic" else "consumer"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = threading.Event()
        self._assignments: dict[TopicAndPartition, Assignment] = {}
        self._epoch = 0
        self._client: Consumer | None = None
        self._next_commit = 0.0
        self._next_probe = 0.0
        self._polled_at = time.monotonic()
        self._is_refused = False
        self._sink_failure: Exception | None = None
        self._trouble = Trouble(_log.error)
        self._lost_watch = LostWatch()
        self._committer = Committer()
        self._complaints = Complaints(_log.error, every_seconds=30.0)
        self._remarks = Complaints(_log.info, every_seconds=30.0)
        self.ended: asyncio.Future[None] | None = None
        """Done when the thread has ended; holds its exception if it ended by one."""

    async def start(self) -> None:
        """Start the poll thread, which joins the group.

        Raise SettingsError for an unreadable file, KafkaFailure if the settings cannot work at all.
        """
        check_files(self._settings.tls)
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()
        consumer = self._open()
        threading.Thread(target=self._run, args=(consumer,), name="kafka-consumer-poll", daemon=True).start()

    async def stop(self) -> None:
        """Drain, commit, fence, leave the group. Raise what ended the thread, if it ended by an error."""
        self._is_stopping.set()
        if self.ended is not None:
            await self.ended

    def read_also(self, topics: Sequence[str]) -> None:
        """Read these topics as well, instead of those named before. One that is not there keeps a group from working.

        Under KIP-848 a broker turns a member away that subscribes to a topic it may not see.
        """
        self._wanted_topics = [self._settings.topic, *topics]

    @property
    def trouble(self) -> KafkaFailure | None:
        """Return what keeps records from coming at this moment, or None."""
        return self._trouble.current

    @property
    def seconds_since_poll(self) -> float:
        """Return how long ago the poll thread came round; a hand-over may take as long as its drain."""
        return time.monotonic() - self._polled_at

    @property
    def is_polling(self) -> bool:
        """Return whether the poll thread comes round."""
        return self.seconds_since_poll < POLL_STALE_SECONDS + self._drain_seconds + SETTLE_SECONDS

    def _accept(self, batch: Batch) -> None:
        """Give a batch to the sink (event loop). Should that fail, end: going on would commit past what was lost."""
        try:
            self._sink.accept(batch)
        except Exception as error:  # noqa: BLE001 - a defect, whatever it is; the process ends by it
            for assignment, _ in batch:
                assignment.fence()
            self._sink_failure = error
            self._is_stopping.set()

    # Everything below runs in the poll thread.

    def _open(self) -> Consumer:
        config = build_consumer_config(
            self._settings,
            client_id=self._client_id,
            group_protocol=self.group_protocol,
            drain_seconds=self._drain_seconds,
        )
        callbacks: dict[str, Any] = {
            "error_cb": self._on_error,
            "stats_cb": self._on_statistics,
            "on_commit": self._committer.on_commit,
        }
        try:
            consumer = self._client = Consumer({**config, **callbacks}, logger=logging.getLogger("tocsin.librdkafka"))
            self._subscribe(consumer)
        except KafkaException as error:
            raise translate_exception(error) from error
        return consumer

    def _subscribe(self, consumer: Consumer) -> None:
        self._topics = self._wanted_topics
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def _run(self, consumer: Consumer) -> None:
        failure: Exception | None = None
        try:
            self._consume_until_stopped(consumer)
        except Exception as error:  # noqa: BLE001 - the top of the thread: whoever awaits `ended` is told
            failure = error
        self._call_loop(self._end, failure)

    def _end(self, failure: Exception | None) -> None:
        if self.ended is None or self.ended.done():
            return
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)

    def _consume_until_stopped(self, consumer: Consumer) -> None:
        try:
            while not self._is_stopping.is_set():
                self._poll(consumer)
                if self._is_refused:
                    consumer = self._fall_back(consumer)
                elif self._lost_watch.is_lost(self._polled_at):
                    consumer = self._find_back(consumer)
            self._hand_over(consumer, self._take(list(self._assignments)))
        finally:
            self._close(consumer)
        if self._sink_failure is not None:
            raise self._sink_failure

    def _fall_back(self, consumer: Consumer) -> Consumer:
        _log.info("the broker has no group.protocol=consumer: joining as a classic member")
        self._is_refused = False
        self.group_protocol = "classic"
        return self._replace(consumer)

    def _find_back(self, consumer: Consumer) -> Consumer:
        _log.warning("the Kafka client knows no broker any more: joining with a new one")
        self._lose(list(self._assignments))
        return self._replace(consumer)

    def _replace(self, consumer: Consumer) -> Consumer:
        self._client = None  # what the old one may still say about partitions is not about those of the new one
        self._close(consumer)
        self._trouble.begin_again()
        self._lost_watch.begin_again()
        return self._open()

    def _close(self, consumer: Consumer) -> None:
        """Leave the group, and leave a client to itself that does not come back from that.

        Without a coordinator it may not: https://github.com/confluentinc/librdkafka/issues/3740.
        """
        leaving = threading.Thread(target=consumer.close, name="kafka-consumer-close", daemon=True)
        leaving.start()
        leaving.join(CLOSE_SECONDS)
        if leaving.is_alive():
            _log.warning("the group was not left in time: it will notice by itself", seconds=CLOSE_SECONDS)

    def _poll(self, consumer: Consumer) -> None:
        if self._topics != self._wanted_topics:
            self._subscribe(consumer)
        messages = consume(consumer, BATCH_RECORDS, wait_seconds=POLL_SECONDS)
        self._polled_at = time.monotonic()
        batch = [pair for message in messages if (pair := self._receive(message)) is not None]
        if batch:
            self._trouble.note_progress()
            self._call_loop(self._accept, batch)
        if self._polled_at >= self._next_commit:
            self._next_commit = self._polled_at + COMMIT_INTERVAL_SECONDS
            self._commit_due(consumer)
        self._apply_pressure(consumer)
        if (not self._assignments or self._trouble.is_of_the_group) and self._polled_at >= self._next_probe:
            self._next_probe = self._polled_at + PROBE_INTERVAL_SECONDS
            self._probe(consumer)

    def _receive(self, message: Message) -> tuple[Assignment, Record] | None:
        error = message.error()
        if error is not None:
            self._on_record_error(message.topic(), error)
            return None
        record = read_message(message)
        assignment = self._assignments.get((record.topic, record.partition))
        if assignment is None:
            return None  # read ahead of a revoke; whoever owns the partition now will read it again
        if record.offset < assignment.next_offset:
            # After a rebalance, librdkafka now and then reads on from too far back.
            if assignment.is_same_log(record, message.leader_epoch()):
                self._remarks.about("a partition is read again", "what was taken before is passed over")
                return None
            assignment = self._rewind(assignment, record.offset)
        assignment.receive(record, message.leader_epoch())
        return assignment, record

    def _rewind(self, old: Assignment, offset: int) -> Assignment:
        """Begin a new epoch where offsets step back, as they do when a topic was deleted and made again."""
        _log.warning(
            "offsets stepped back", topic=old.topic, partition=old.partition, expected=old.next_offset, offset=offset
        )
        return self._assign(old.topic, old.partition, None)

    def _assign(self, topic: str, partition: int, committed: Commit | None) -> Assignment:
        if (old := self._assignments.get((topic, partition))) is not None:
            old.fence()  # one epoch at a time, whatever the group says
        self._epoch += 1
        assignment = self._assignments[topic, partition] = Assignment(topic, partition, self._epoch, committed)
        return assignment

    def _apply_pressure(self, consumer: Consumer) -> None:
        owned = max(1, len(self._assignments))
        max_records = max(MIN_SHARE_RECORDS, self._max_held_records // owned)
        max_bytes = max(self._settings.message_max_bytes, self._max_held_bytes // owned)
        changed: dict[bool, list[TopicPartition]] = {True: [], False: []}
        for assignment in self._assignments.values():
            should_rest = decide_pause(assignment, max_records=max_records, max_bytes=max_bytes)
            if should_rest != assignment.is_paused:
                assignment.is_paused = should_rest
                changed[should_rest].append(TopicPartition(assignment.topic, assignment.partition))
        if changed[True]:
            consumer.pause(changed[True])
        if changed[False]:
            consumer.resume(changed[False])

    def _commit_due(self, consumer: Consumer) -> None:
        self._committer.commit_due(consumer, self._assignments.values())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_stopping.is_set() or consumer is not self._client:
            return  # a rebalance met the farewell: nothing of them will be read
        self._trouble.note_progress()
        begins: list[TopicPartition] = []
        for place, committed in self._read_committed(consumer, partitions).items():
            self._assign(*place, committed)
            offset = OFFSET_BEGINNING if committed is None else committed.offset
            begins.append(TopicPartition(*place, offset))
        if partitions:
            consumer.resume(partitions)  # librdkafka remembers a rest from an earlier epoch, and nobody would end it
        if begins:
            self._begin(consumer, begins)
        _log.info("partitions assigned", partitions=_name(_keys(partitions)), owned=len(self._assignments))

    def _begin(self, consumer: Consumer, begins: list[TopicPartition]) -> None:
        """Have these partitions read from their offsets.

        Left to itself librdkafka asks for the committed offsets a second time, and when the coordinator moves at that
        moment it never asks again and reads nothing (2.16).
        """
        if self.group_protocol == "consumer":
            consumer.incremental_assign(begins)
        else:
            consumer.assign(begins)

    def _read_committed(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> Mapping[TopicAndPartition, Commit | None]:
        """Return where the group stands, or nothing if this process is told to stop meanwhile.

        Raise KafkaFailure if nobody says it, after a time in which brokers restart: to guess would be to deliver again.
        """
        until = time.monotonic() + RESUME_SECONDS
        while partitions:
            try:
                return ask_committed(consumer, partitions, RESUME_TIMEOUT_SECONDS)
            except KafkaFailure as failure:
                reason = failure
            self._complaints.about("the group's offsets cannot be read", str(reason))
            self._polled_at = time.monotonic()  # it waits for Kafka, as it would in a poll
            if self._polled_at >= until:
                raise reason
            if self._is_stopping.wait(RESUME_AGAIN_SECONDS):
                break
        return {}

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if consumer is not self._client:
            return
        self._hand_over(consumer, self._take(_keys(partitions)))
        self._polled_at = time.monotonic()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if consumer is not self._client:
            return
        self._lose(_keys(partitions))

    def _lose(self, partitions: Iterable[TopicAndPartition]) -> None:
        lost = self._take(partitions)
        for assignment in lost:
            assignment.fence()
        _log.warning("partitions lost: what is unfinished will be delivered by their new owner", partitions=len(lost))

    def _take(self, partitions: Iterable[TopicAndPartition]) -> list[Assignment]:
        return [self._assignments.pop(each) for each in partitions if each in self._assignments]

    def _hand_over(self, consumer: Consumer, assignments: list[Assignment]) -> None:
        """Drain, commit, fence: in that order, or finished work would be forgotten and done again."""
        if not assignments:
            return
        began = time.monotonic()
        self._drain(assignments)
        self._settle(consumer, assignments)
        for assignment in assignments:
            assignment.fence()
        names = _name((assignment.topic, assignment.partition) for assignment in assignments)
        _log.info("partitions handed over", partitions=names, seconds=round(time.monotonic() - began, 3))

    def _drain(self, assignments: list[Assignment]) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        work = asyncio.run_coroutine_threadsafe(self._sink.drain(assignments, self._drain_seconds), self._loop)
        try:
            work.result(self._drain_seconds + HAND_OVER_MARGIN_SECONDS / 2)
        except Exception:  # noqa: BLE001 - whatever happened to the loop, what is finished must still be committed
            work.cancel()
            _log.exception("a hand-over could not be drained")

    def _settle(self, consumer: Consumer, assignments: list[Assignment]) -> None:
        if not self._committer.settle(consumer, assignments):
            _log.error("handed over uncommitted: what was finished since the last commit may be delivered again")

    def _on_record_error(self, topic: str | None, error: KafkaError) -> None:
        if topic is None or topic == self._settings.topic or error.fatal():
            self._on_group_error(error)
        else:
            self._call_loop(self._on_refused, topic, translate_error(error))

    def _on_group_error(self, error: KafkaError) -> None:
        is_fatal = error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 - public, despite its name
        if is_fatal and self._may_fall_back and self.group_protocol == "consumer" and self._epoch == 0:
            self._is_refused = True  # a member that never owned a partition ends fatally: the broker lacks the protocol
            return
        failure = translate_error(error)
        if is_fatal:
            raise failure
        self._trouble.note_group(failure)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._on_group_error(error)
        else:
            self._trouble.note_connection(error)

    def _on_statistics(self, text: str) -> None:
        statistics = read_statistics(text)
        self._trouble.note_statistics(statistics)
        self._lost_watch.note(statistics, time.monotonic())

    def _probe(self, consumer: Consumer) -> None:
        """Ask for the topic while nothing comes: under KIP-848 a missing one is not an error but a silence."""
        try:
            topic = consumer.list_topics(self._settings.topic, PROBE_TIMEOUT_SECONDS).topics[self._settings.topic]
        except (KafkaException, KeyError):
            return  # an unreachable broker has been told of already
        if topic.error is not None:
            self._on_group_error(topic.error)
        else:
            self._trouble.note_topic_seen(is_owner=bool(self._assignments))

    def _call_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to work
            self._is_stopping.set()


def _keys(partitions: Iterable[TopicPartition]) -> list[TopicAndPartition]:
    return [(each.topic, each.partition) for each in partitions]


def _name(partitions: Iterable[TopicAndPartition]) -> list[str]:
    return [f"{topic}-{partition}" for topic, partition in sorted(partitions)]
