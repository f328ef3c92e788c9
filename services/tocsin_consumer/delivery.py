"""One attempt to deliver one notification on one channel, from "is it still worth it" to "what now".

    expired? ──► recipient? ──► claim ──► send ──┬─ taken ──► delivered
       │            │             │              └─ failed ─► again later, or dead letter
       ▼            ▼             ▼
    expired    dead letter   sent before: suppressed

`Deliverer.attempt` never waits for time to pass: it says how long to wait, and the lane parks. What is not the
notification's fault (the directory, the claim store or the dead-letter topic is away) costs it no attempt: it waits
until that is mended, and the log says what to mend.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tocsin_consumer import metrics
from tocsin_consumer.channels.base import Channel, Envelope, PermanentFailure, SendFailed
from tocsin_consumer.claims import Claims, ClaimsUnavailable, Held
from tocsin_consumer.dead_letters import Burial, BurialReason, DeadLetters
from tocsin_consumer.journey import Delivery, Reached
from tocsin_consumer.metrics import Outcome
from tocsin_consumer.sending import Sender
from tocsin_core.complaints import Complaints
from tocsin_core.errors import KafkaFailure
from tocsin_core.logging import get_logger
from tocsin_core.message import Notification
from tocsin_core.retry import Backoff, Retry, decide_retry
from tocsin_core.users import DirectoryUnavailable, Profile, UserDirectory

EVENTS = {
    Outcome.DELIVERED: "notification delivered",
    Outcome.DEAD_LETTERED: "notification dead-lettered",
    Outcome.EXPIRED: "notification expired",
    Outcome.SUPPRESSED: "notification suppressed",
}
BACKOFF = Backoff(first_seconds=0.5, max_seconds=30.0, max_retry_after_seconds=60.0)
WAIT = Backoff(first_seconds=0.5, max_seconds=10.0)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a notification is worth trying."""

    max_attempts: int
    ttl_seconds: int
    backoff: Backoff = BACKOFF
    wait: Backoff = WAIT
    user_grace_seconds: float = 120.0
    """How long an unknown recipient is waited for: a mounted ConfigMap reaches pods up to a minute or so apart."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Try again after so many seconds."""

    seconds: float


class Ended:
    """The delivery has reached its end."""


ENDED = Ended()
Step = Pause | Burial | Ended


class Deliverer:
    """Delivers through the pipeline's channels."""

    def __init__(
        self,
        *,
        channels: Mapping[str, Channel],
        users: UserDirectory,
        claims: Claims,
        dead_letters: DeadLetters,
        policy: Policy,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._channels = channels
        self._users = users
        self._dead_letters = dead_letters
        self._policy = policy
        self._now = now
        self._draw = draw
        self._complaints = Complaints(_log.warning)
        self._sender = Sender(claims, complaints=self._complaints)

    async def attempt(self, delivery: Delivery) -> float | None:
        """Try once. Return None if the delivery has reached its end, else how many seconds to wait before the next."""
        step = delivery.burial or await self._advance(delivery)
        if isinstance(step, Burial):
            delivery.burial = step
            step = await self._bury(delivery, step)
        return step.seconds if isinstance(step, Pause) else None

    async def _advance(self, delivery: Delivery) -> Step:
        notification = delivery.journey.notification
        if notification is None:
            raise RuntimeError("a record that nobody could read has only a burial")
        if self._now() >= expires_at(notification, delivery.journey.accepted_at, self._policy.ttl_seconds):
            return self._end(delivery, Outcome.EXPIRED)
        channel = self._channels.get(delivery.channel)
        if channel is None:
            known = ", ".join(self._channels)
            text = f"the pipeline has no channel {delivery.channel!r}; it has {known}"
            return self._build_burial(delivery, BurialReason.UNKNOWN_CHANNEL, "UnknownChannel", text)
        profile = await self._find_profile(delivery, notification)
        if not isinstance(profile, Profile):
            return profile
        return await self._claim_and_send(delivery, channel, notification, profile)

    async def _find_profile(self, delivery: Delivery, notification: Notification) -> Profile | Step:
        try:
            profile = await self._users.find(notification.to_id)
        except DirectoryUnavailable as error:
            return self._wait(delivery, "recipients cannot be looked up", str(error))
        if profile is not None:
            return profile
        if self._now() - delivery.journey.accepted_at < timedelta(seconds=self._policy.user_grace_seconds):
            return self._wait(delivery, "the recipient is not known yet", f"no user {notification.to_id!r}")
        text = f"no user {notification.to_id!r} in the directory"
        return self._build_burial(delivery, BurialReason.USER_MISSING, "UserMissing", text)

    async def _claim_and_send(
        self, delivery: Delivery, channel: Channel, notification: Notification, profile: Profile
    ) -> Step:
        result = await self._sender.send(delivery, channel, self._wrap(delivery, notification, profile))
        match result:
            case Held():
                return Pause(result.again_in_seconds)
            case ClaimsUnavailable():
                return self._wait(delivery, "claims cannot be made: nothing is sent", str(result))
            case SendFailed():
                return self._after_failure(delivery, result)
            case Reached.FENCED:
                return ENDED
            case Reached.SENT:
                return self._end(delivery, Outcome.DELIVERED)
        reason = "sent before" if result is Reached.SENT_BEFORE else "no device"
        return self._end(delivery, Outcome.SUPPRESSED, reason=reason)

    def _after_failure(self, delivery: Delivery, failure: SendFailed) -> Step:
        metrics.ATTEMPTS_FAILED.labels(delivery.channel).inc()
        delivery.first_failed_at = delivery.first_failed_at or self._now()
        decision = decide_retry(
            attempts=delivery.attempts,
            max_attempts=self._policy.max_attempts,
            is_retriable=failure.retriable,
            retry_after_seconds=failure.retry_after_seconds,
            random=self._draw(),
            backoff=self._policy.backoff,
        )
        if isinstance(decision, Retry):
            self._complaints.about("a send failed and is tried again", str(failure), **delivery.describe())
            return Pause(decision.after_seconds)
        reason = failure.reason if isinstance(failure, PermanentFailure) else decision.reason
        return self._build_burial(delivery, reason, type(failure).__name__, str(failure))

    async def _bury(self, delivery: Delivery, burial: Burial) -> Step:
        try:
            await self._dead_letters.bury(delivery.journey.record, burial)
        except KafkaFailure as error:
            return self._wait(
                delivery,
                "a dead letter cannot be written: its offset is not committed until it can",
                f"{self._dead_letters.topic}: {error}",
                advice=error.advice or f"check that the topic {self._dead_letters.topic} exists and may be written",
            )
        return self._end(
            delivery,
            Outcome.DEAD_LETTERED,
            reason=burial.reason,
            error=burial.error_message,
            to=self._dead_letters.topic,
        )

    def _wait(self, delivery: Delivery, event: str, reason: str, **fields: str) -> Pause:
        delivery.waits += 1
        self._complaints.about(event, reason, **fields, **delivery.describe())
        return Pause(self._policy.wait.delay_seconds(delivery.waits, self._draw()))

    def _build_burial(self, delivery: Delivery, reason: str, error_class: str, text: str) -> Burial:
        now = self._now()
        return Burial(
            reason=reason,
            error_class=error_class,
            error_message=text,
            channel=delivery.channel,
            attempts=delivery.attempts,
            first_failed_at=delivery.first_failed_at or now,
            last_failed_at=now,
        )

    def _wrap(self, delivery: Delivery, notification: Notification, profile: Profile) -> Envelope:
        journey = delivery.journey
        record = journey.record
        return Envelope(notification, profile, journey.trace_id, record.topic, record.partition, record.offset)

    def _end(self, delivery: Delivery, outcome: Outcome, **fields: str) -> Ended:
        metrics.DELIVERIES.labels(delivery.channel, outcome.value).inc()
        _log.info(EVENTS[outcome], **delivery.describe(), **fields)
        return ENDED


def expires_at(notification: Notification, accepted_at: datetime, ttl_seconds: int) -> datetime:
    """Return when a notification is no longer worth sending: its own `expiresAt` or the pipeline's TTL, if earlier."""
    by_pipeline = accepted_at + timedelta(seconds=ttl_seconds)
    return min(notification.expires_at, by_pipeline) if notification.expires_at else by_pipeline
