"""One attempt to deliver one notification on one channel, from "is it still worth it" to "what now".

    expired? ──► its turn? ──► recipient? ──► claim ──► send ──┬─ taken ──► delivered
       │            │             │             │              ├─ nobody there ─► suppressed
       ▼            ▼             ▼             ▼              └─ failed ─► again at once, from a retry topic, or never
    expired   waits behind   dead letter   sent before: suppressed

`Deliverer.attempt` never waits for time to pass: it says how long to wait, and the lane parks. What is not the
notification's fault (the provider, the directory, a store or a topic is away) costs it no attempt: it waits until that
is mended, and the log says what to mend.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tocsin_consumer import metrics
from tocsin_consumer.channels.base import (
    Channel,
    Envelope,
    NobodyThere,
    PermanentFailure,
    Postponed,
    SendFailed,
    TemporaryFailure,
)
from tocsin_consumer.claims import Claims, ClaimsUnavailable, Held
from tocsin_consumer.dead_letters import Burial, BurialReason, DeadLetters
from tocsin_consumer.gate import Gate
from tocsin_consumer.journey import Delivery, Reached
from tocsin_consumer.metrics import Outcome
from tocsin_consumer.order import OrderUnavailable
from tocsin_consumer.retries import Retries
from tocsin_consumer.sending import Sender
from tocsin_consumer.steps import ENDED, SETTLED, Ended, Pause, Pending, Postponement, Settled, Step
from tocsin_core.complaints import Complaints
from tocsin_core.errors import KafkaFailure
from tocsin_core.logging import get_logger
from tocsin_core.message import Notification
from tocsin_core.retry import Backoff, Defer, GiveUp, Retry, Tier, choose_tier, decide_retry
from tocsin_core.retry_record import Deferral
from tocsin_core.users import DirectoryUnavailable, Profile, ProfileInvalid, UserDirectory

EVENTS = {
    Outcome.DELIVERED: "notification delivered",
    Outcome.DEAD_LETTERED: "notification dead-lettered",
    Outcome.EXPIRED: "notification expired",
    Outcome.SUPPRESSED: "notification suppressed",
}
SUPPRESSIONS = {
    Reached.SENT_BEFORE: "sent before",
    Reached.BURIED_BEFORE: "dead-lettered before",
    Reached.NO_DEVICE: "no device",
}
MAX_SPARED = 3
"""After so many failures that cost it nothing, a delivery makes room: it may be the one that the provider chokes on."""
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


class Deliverer:
    """Delivers through the pipeline's channels."""

    def __init__(
        self,
        *,
        channels: Mapping[str, Channel],
        users: UserDirectory,
        claims: Claims,
        dead_letters: DeadLetters,
        retries: Retries,
        gate: Gate,
        policy: Policy,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._channels = channels
        self._users = users
        self._dead_letters = dead_letters
        self._retries = retries
        self._gate = gate
        self._policy = policy
        self._now = now
        self._draw = draw
        self._complaints = Complaints(_log.warning)
        self._sender = Sender(claims, complaints=self._complaints, on_answer=self._note)

    async def attempt(self, delivery: Delivery) -> float | None:
        """Try once. Return None if nothing is left to do here, else how many seconds to wait before the next."""
        step = delivery.pending or await self._advance(delivery)
        while not isinstance(step, Pause | Ended):
            delivery.pending = step
            step = await self._carry_out(delivery, step)
        return step.seconds if isinstance(step, Pause) else None

    async def hand_over(self, delivery: Delivery) -> bool:
        """Move on what a hand-over cannot wait for, and return whether that was possible in time for its next owner."""
        if delivery.pending is not None or not self._may_be_overtaken(delivery):
            return False
        postponement = self._postpone_in_time(delivery, "handed over before its end")
        if postponement is None:
            return False
        delivery.pending = postponement
        return await self.attempt(delivery) is None

    async def _advance(self, delivery: Delivery) -> Step:
        notification = delivery.journey.notification
        if notification is None:
            raise RuntimeError("a record that nobody could read has only a burial")
        if self._now() >= self._expires_at(delivery):
            return self._settle(delivery, Outcome.EXPIRED)
        channel = self._channels.get(delivery.channel)
        if channel is None:
            known = ", ".join(self._channels)
            text = f"the pipeline has no channel {delivery.channel!r}; it has {known}"
            return self._build_burial(delivery, BurialReason.UNKNOWN_CHANNEL, "UnknownChannel", text)
        step = self._leave_paused_channel(delivery)
        if step is None and self._retries.is_strict:
            step = await self._await_turn(delivery)
        if step is not None:
            return step
        profile = await self._find_profile(delivery, notification)
        if not isinstance(profile, Profile):
            return profile
        return await self._claim_and_send(delivery, channel, notification, profile)

    async def _carry_out(self, delivery: Delivery, step: Pending) -> Step:
        match step:
            case Burial():
                return await self._bury(delivery, step)
            case Postponement():
                return await self._move(delivery, step)
            case Settled():
                return await self._let_next_go(delivery)

    def _leave_paused_channel(self, delivery: Delivery) -> Step | None:
        """Return a move to a retry topic for what a hand-over waits for, on a channel where nothing can be sent.

        What was never tried is tried first, unless order is strict: later ones would make their first attempts before.
        """
        is_paused = delivery.journey.assignment.is_draining and self._gate.is_holding(delivery.slot)
        if is_paused and self._may_be_overtaken(delivery):
            return self._postpone_in_time(delivery, "handed over while its channel was paused")
        return None

    def _may_be_overtaken(self, delivery: Delivery) -> bool:
        """Return whether moving it keeps the promise that first attempts start in the order of acceptance."""
        return self._retries.is_strict or delivery.first_failed_at is not None

    async def _await_turn(self, delivery: Delivery) -> Step | None:
        try:
            turn = await self._retries.ask_turn(delivery)
        except OrderUnavailable as error:
            return self._wait(delivery, "the order cannot be kept: nothing is sent", str(error))
        match turn:
            case Retry():
                delivery.waited_seconds += turn.after_seconds
                return Pause(turn.after_seconds)
            case Defer():
                return self._postpone(delivery, turn.tier, "follows an earlier notification")
        return None

    async def _find_profile(self, delivery: Delivery, notification: Notification) -> Profile | Step:
        try:
            profile = await self._users.find(notification.to_id)
        except ProfileInvalid as error:
            # Not an outage: one user's entry, and waiting for it until the end would hold up all who come after.
            return self._miss_user(delivery, type(error).__name__, str(error))
        except DirectoryUnavailable as error:
            return self._wait(delivery, "recipients cannot be looked up", str(error))
        if profile is not None:
            return profile
        return self._miss_user(delivery, "UserMissing", f"no user {notification.to_id!r} in the directory")

    def _miss_user(self, delivery: Delivery, error_class: str, text: str) -> Step:
        if self._now() - delivery.journey.accepted_at < timedelta(seconds=self._policy.user_grace_seconds):
            return self._wait(delivery, "the recipient is not known yet", text)
        return self._build_burial(delivery, BurialReason.USER_MISSING, error_class, text)

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
                return self._settle(delivery, Outcome.DELIVERED)
        return self._settle(delivery, Outcome.SUPPRESSED, reason=SUPPRESSIONS[result])

    def _after_failure(self, delivery: Delivery, failure: SendFailed) -> Step:
        if isinstance(failure, NobodyThere):
            return self._settle(delivery, Outcome.SUPPRESSED, reason=str(failure))
        if isinstance(failure, Postponed):
            delivery.attempts -= 1
            return self._wait(delivery, "a send waits for a way to its recipient", str(failure))
        metrics.ATTEMPTS_FAILED.labels(delivery.channel).inc()
        delivery.first_failed_at = delivery.first_failed_at or self._now()
        if isinstance(failure, TemporaryFailure) and failure.is_of_channel and self._gate.is_holding(delivery.slot):
            return self._spare(delivery, failure)
        decision = decide_retry(
            attempts=delivery.attempts,
            max_attempts=self._policy.max_attempts,
            is_retriable=failure.retriable,
            retry_after_seconds=failure.retry_after_seconds,
            random=self._draw(),
            backoff=self._policy.backoff,
            tiers=self._retries.tiers,
        )
        match decision:
            case Retry():
                self._complaints.about("a send failed and is tried again", str(failure), **delivery.describe())
                return Pause(decision.after_seconds)
            case Defer():
                return self._postpone(delivery, decision.tier, str(failure))
            case GiveUp():
                reason = failure.reason if isinstance(failure, PermanentFailure) else decision.reason
                return self._build_burial(delivery, reason, type(failure).__name__, str(failure))

    def _note(self, delivery: Delivery, failure: SendFailed | None, began_at: float) -> None:
        notification = delivery.journey.notification
        if notification is not None:
            self._gate.note(delivery.slot, failure, notification_id=notification.id, began_at=began_at)

    def _spare(self, delivery: Delivery, failure: SendFailed) -> Step:
        """Let a failure cost nothing, because the whole channel fails; the gate says when the next may try."""
        delivery.attempts -= 1
        delivery.spared += 1
        if delivery.spared >= MAX_SPARED and (step := self._postpone_in_time(delivery, str(failure))):
            return step
        return Pause(self._policy.backoff.delay_seconds(1, self._draw()))

    def _postpone_in_time(self, delivery: Delivery, error: str) -> Postponement | None:
        """Return a move to the retry topic that outlasts the channel's pause, if there is one that is worth it."""
        tiers = self._retries.tiers
        if not tiers:
            return None
        tier = choose_tier(tiers, at_least_seconds=self._gate.pause_seconds(delivery.slot))
        step = self._build_postponement(delivery, tier, error)
        return step if self._is_in_time(delivery, tier) else None

    def _postpone(self, delivery: Delivery, tier: Tier, error: str) -> Step:
        if not self._is_in_time(delivery, tier):
            return self._settle(delivery, Outcome.EXPIRED, reason=f"before it could be tried again: {error}")
        return self._build_postponement(delivery, tier, error)

    def _is_in_time(self, delivery: Delivery, tier: Tier) -> bool:
        return self._now() + timedelta(seconds=tier.delay_seconds) < self._expires_at(delivery)

    def _build_postponement(self, delivery: Delivery, tier: Tier, error: str) -> Postponement:
        deferral = Deferral(
            channel=delivery.channel,
            not_before_ms=int((self._now().timestamp() + tier.delay_seconds) * 1000),
            attempts=delivery.attempts,
            first_failed_at=delivery.first_failed_at,
            last_error=error,
        )
        return Postponement(tier, deferral)

    async def _move(self, delivery: Delivery, step: Postponement) -> Step:
        if delivery.journey.assignment.is_fenced:
            return ENDED  # it is its new owner's to try
        try:
            await self._retries.move(delivery, step, live_seconds=self._live_seconds(delivery))
        except OrderUnavailable as error:
            return self._wait(delivery, "the order cannot be kept: nothing is sent", str(error))
        except KafkaFailure as error:
            topic = step.tier.topic
            if error.retriable:
                return self._wait(delivery, "a retry record cannot be written yet", f"{topic}: {error}")
            delivery.pending = None  # it stays here and is tried from its lane
            self._complaints.about("a retry record cannot be written", f"{topic}: {error}", **delivery.describe())
            return Pause(self._policy.backoff.delay_seconds(delivery.attempts, self._draw()))
        fields = {"to": step.tier.topic, "reason": step.deferral.last_error}
        _log.info("notification deferred", **delivery.describe(), **fields)
        return ENDED

    async def _let_next_go(self, delivery: Delivery) -> Step:
        try:
            await self._retries.leave(delivery)
        except OrderUnavailable as error:
            return self._wait(delivery, "the order cannot be kept: those that wait cannot be let go", str(error))
        return ENDED

    async def _bury(self, delivery: Delivery, burial: Burial) -> Step:
        try:
            await self._dead_letters.bury(delivery.journey.origin, burial)
        except KafkaFailure as error:
            return self._wait(
                delivery,
                "a dead letter cannot be written: its offset is not committed until it can",
                f"{self._dead_letters.topic}: {error}",
                advice=error.advice or f"check that the topic {self._dead_letters.topic} exists and may be written",
            )
        await self._sender.remember_burial(delivery)
        return self._settle(
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
        journey, origin = delivery.journey, delivery.journey.origin
        where = (origin.topic, origin.partition, origin.offset)
        return Envelope(notification, profile, journey.trace_id, *where, journey.accepted_at)

    def _settle(self, delivery: Delivery, outcome: Outcome, **fields: str) -> Step:
        # The slot is the channel's name, or none for a channel that is not ours: anybody may invent one.
        metrics.deliveries(delivery.slot, outcome).inc()
        _log.info(EVENTS[outcome], **delivery.describe(), **fields)
        # What was delivered has asked whether others wait for it; another end is rare, and may come before it asks.
        has_followers = delivery.is_queued or outcome is not Outcome.DELIVERED
        return SETTLED if self._retries.is_strict and has_followers else ENDED

    def _expires_at(self, delivery: Delivery) -> datetime:
        notification, accepted_at = delivery.journey.notification, delivery.journey.accepted_at
        if notification is None:
            return datetime.max.replace(tzinfo=UTC)
        return expires_at(notification, accepted_at, self._policy.ttl_seconds)

    def _live_seconds(self, delivery: Delivery) -> float:
        return (self._expires_at(delivery) - self._now()).total_seconds()


def expires_at(notification: Notification, accepted_at: datetime, ttl_seconds: int) -> datetime:
    """Return when a notification is no longer worth sending: its own `expiresAt` or the pipeline's TTL, if earlier."""
    by_pipeline = accepted_at + timedelta(seconds=ttl_seconds)
    return min(notification.expires_at, by_pipeline) if notification.expires_at else by_pipeline
