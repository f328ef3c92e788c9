"""A deliverer on a stage: the channel, the stores and the topics around it are under the test's control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tocsin_consumer.channels.base import ONE_DEVICE, Envelope
from tocsin_consumer.claims import Claim, ClaimKey, Granted
from tocsin_consumer.cursor import Cursor
from tocsin_consumer.dead_letters import DeadLetters
from tocsin_consumer.delivery import Deliverer, Policy
from tocsin_consumer.gate import Gate
from tocsin_consumer.journey import Delivery, Journey, LaneKey, Leg
from tocsin_consumer.order import Behind, Free, Place, Relaxed
from tocsin_consumer.retries import Retries
from tocsin_consumer.retry_topics import RetryTopics
from tocsin_core.assignment import Assignment
from tocsin_core.errors import KafkaFailure
from tocsin_core.message import Notification, Record
from tocsin_core.offsets import OffsetTracker
from tocsin_core.retry import Backoff, build_tiers
from tocsin_core.users import Profile

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RECORD = Record("orders", 3, 7, 1_700_000_000_000, b"2", b"{}", (("traceparent", b"00"),))


class Stage:
    """What surrounds a deliverer: each attribute is what the next call meets."""

    name = "hook"
    timeout_seconds = 5.0
    trouble = ""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.claim_answer: Claim | Exception = Granted("token")
        self.profile: Profile | Exception | None = Profile(id="2")
        self.topic_failure: Exception | None = None
        self.retry_failure: KafkaFailure | None = None
        self.turn: Free | Behind | Exception = Free()
        self.on_send: Callable[[], object] = lambda: None
        self.sent: list[Envelope] = []
        self.done: list[str] = []
        self.released: list[bool] = []
        self.buried: list[dict[str, bytes | None]] = []
        self.remembered: list[tuple[str, str]] = []
        """Dead letters that the store knows of, and their places."""
        self.deferred: list[Record] = []
        self.order: list[tuple[str, Place]] = []
        self.seconds = 0.0
        """How long ago it began."""

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    async def send_notification(self, envelope: Envelope) -> None:
        self.sent.append(envelope)
        self.on_send()
        if self.failure is not None:
            raise self.failure

    async def find(self, _: str) -> Profile | None:
        if isinstance(self.profile, Exception):
            raise self.profile
        return self.profile

    async def claim(self, *_: Any, **__: Any) -> Claim:
        if isinstance(self.claim_answer, Exception):
            raise self.claim_answer
        return self.claim_answer

    async def mark_done(self, key: ClaimKey) -> None:
        self.done.append(key.notification_id)

    async def mark_buried(self, key: ClaimKey, *, place: str) -> None:
        self.remembered.append((key.notification_id, place))

    async def release(self, *_: Any, is_uncertain: bool) -> None:
        self.released.append(is_uncertain)

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to close."""


class StageChannel:
    name = "hook"
    timeout_seconds = 5.0
    repeats_are_harmless = False

    def __init__(self, stage: Stage, devices: Sequence[str] = ONE_DEVICE) -> None:
        self._devices = devices
        self.send = stage.send_notification
        self.close = stage.close

    def devices(self, _: Profile) -> Sequence[str]:
        return self._devices


class StageProducer:
    """Knows the dead-letter topic, and retry topics of two partitions where the stage has any."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        *,
        partition: int | None = None,
    ) -> None:
        failure = self._stage.topic_failure if topic == "orders.dlq" else self._stage.retry_failure
        if failure is not None:
            raise failure
        if topic == "orders.dlq":
            self._stage.buried.append(dict(headers))
        else:
            now_ms = int(self._stage.now().timestamp() * 1000)
            self._stage.deferred.append(Record(topic, partition or 0, 0, now_ms, key, value, tuple(headers)))

    async def count_partitions(self, topic: str) -> int:
        del topic
        if self._stage.retry_failure is not None:
            raise self._stage.retry_failure
        return 2


class StageOrder:
    """Says whose turn it is as the stage does, and writes down who asks."""

    is_kept = True

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def ask(self, place: Place) -> Free | Behind:
        return self._note("ask", place)

    async def queue(self, place: Place, *, due_in_seconds: float, ends_in_seconds: float) -> None:
        del due_in_seconds, ends_in_seconds
        self._note("queue", place)

    async def leave(self, place: Place) -> None:
        self._note("leave", place)

    async def close(self) -> None:
        """Nothing to close."""

    def _note(self, what: str, place: Place) -> Free | Behind:
        if isinstance(self._stage.turn, Exception):
            raise self._stage.turn
        self._stage.order.append((what, place))
        return self._stage.turn


async def build_deliverer(
    stage: Stage, *, has_retry_topics: bool = False, is_strict: bool = False, max_attempts: int = 3
) -> tuple[Deliverer, Gate]:
    """Return a deliverer on the stage, and its gate, whose clock is the stage's."""
    gate = Gate(["hook"], clock=lambda: stage.seconds, draw=lambda: 0.0)
    producer = StageProducer(stage)
    topics = RetryTopics(producer, build_tiers("orders") if has_retry_topics else ())
    await topics.look()
    deliverer = Deliverer(
        channels={"hook": StageChannel(stage)},
        users=stage,
        claims=stage,
        dead_letters=DeadLetters(producer, topic="orders.dlq", group="g"),
        retries=Retries(topics, StageOrder(stage) if is_strict else Relaxed()),
        gate=gate,
        policy=Policy(
            max_attempts=max_attempts,
            ttl_seconds=3600,
            backoff=Backoff(first_seconds=1.0, max_retry_after_seconds=60.0),
            wait=Backoff(first_seconds=2.0),
            user_grace_seconds=120.0,
        ),
        now=stage.now,
        draw=lambda: 0.0,
    )
    return deliverer, gate


def make_delivery(*, age_seconds: float = 0.0, channel: str = "hook", **fields: Any) -> Delivery:
    notification = Notification(**{"id": "n1", "from_id": "1", "to_id": "2", "message": "hi"} | fields)
    assignment = Assignment("orders", 3, 1)
    journey = Journey(
        assignment=assignment,
        record=RECORD,
        record_bytes=3,
        origin=RECORD,
        notification=notification,
        trace_id=None,
        accepted_at=NOW - timedelta(seconds=age_seconds),
    )
    leg = Leg(journey, Cursor("hook", assignment, OffsetTracker()), remaining=1)
    return Delivery(leg, channel=channel, slot="hook", lane=LaneKey(1, b"2", channel))
