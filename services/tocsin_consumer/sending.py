"""One round of a delivery: to each of its devices, claim, send, remember.

Each device has its own claim, so one that fails does not repeat the others: they are done, in this process's memory and
in the store's. The devices of a round are sent to at once, so that a round takes no longer than one send may; their
claims go to the store together. The delivery is over when every device is, as a dead letter if one failed for good.

A claim is only good for a send that can end before the lease does: it is checked just before the send begins, because
the process may have slept in between. One that is not is claimed again, without any doubt: nothing was sent under it.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
import time
from collections.abc import Callable, Sequence

from tocsin_consumer import metrics
from tocsin_consumer.channels.base import Channel, Envelope, PermanentFailure, SendFailed, TemporaryFailure
from tocsin_consumer.claims import Buried, ClaimKey, Claims, ClaimsUnavailable, Done, Granted, Held
from tocsin_consumer.deadlines import Deadlines
from tocsin_consumer.journey import Delivery, Effect, Reached
from tocsin_core.complaints import Complaints
from tocsin_core.logging import get_logger

LEASE_MARGIN_SECONDS = 10.0
"""How much longer than a send a claim holds: for waiting for the claim, and for writing down that it was sent."""

_log = get_logger(__name__)


Result = Reached | Held | ClaimsUnavailable | SendFailed


class Sender:
    """Sends what may be sent, once."""

    def __init__(
        self,
        claims: Claims,
        *,
        complaints: Complaints,
        clock: Callable[[], float] = time.monotonic,
        on_answer: Callable[[Delivery, SendFailed | None, float], None] = lambda *_: None,
    ) -> None:
        """`clock` must be the one that the claims' `holds_until` is told on.

        `on_answer` is told how each send went, and when on that clock it began.
        """
        self._claims = claims
        self._on_answer = on_answer
        self._complaints = complaints
        self._clock = clock
        self._process = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._deadlines = functools.cache(Deadlines)
        """By how long a send may take, which is one number or a few."""

    async def send(self, delivery: Delivery, channel: Channel, envelope: Envelope) -> Result:
        """Send to every device that is not at its end, and return what came of all of them together."""
        try:
            devices = channel.devices(envelope.profile)
        except PermanentFailure as error:
            return error
        if not devices:
            return Reached.NO_DEVICE
        open_devices = [device for device in devices if _effect(delivery, device).end is None]
        if len(open_devices) == 1:  # the usual case needs no task of its own
            results = [await self._send_to(delivery, channel, _address(envelope, open_devices[0]))]
        else:
            results = await self._send_to_each(delivery, channel, envelope, open_devices)
        if any(result is Reached.SENT or isinstance(result, SendFailed) for result in results):
            delivery.attempts += 1
        if len(results) == len(delivery.effects) == 1:
            return results[0]
        return decide_result([*results, *(effect.end for effect in delivery.effects.values() if effect.end)])

    async def remember_burial(self, delivery: Delivery) -> None:
        """Write down that this record must not be tried again on the devices that it did not reach.

        A crash between a dead letter's acknowledgement and the commit of its offset would have it tried again.
        """
        notification = delivery.journey.notification
        for device, effect in delivery.effects.items():
            if notification is not None and effect.end not in {Reached.SENT, Reached.SENT_BEFORE}:
                key = ClaimKey(notification.id, delivery.channel, device)
                try:
                    await self._claims.mark_buried(key, place=delivery.journey.place)
                except ClaimsUnavailable as error:
                    self._complaints.about("a dead letter could not be remembered", str(error), **delivery.describe())

    async def _send_to_each(
        self, delivery: Delivery, channel: Channel, envelope: Envelope, devices: Sequence[str]
    ) -> list[Result]:
        async with asyncio.TaskGroup() as group:
            sends = [
                group.create_task(self._send_to(delivery, channel, _address(envelope, device))) for device in devices
            ]
        return [send.result() for send in sends]

    async def _send_to(self, delivery: Delivery, channel: Channel, envelope: Envelope) -> Result:
        effect = _effect(delivery, envelope.device)
        key = ClaimKey(envelope.notification.id, delivery.channel, envelope.device)
        try:
            claim = await self._claim(delivery, channel, key, effect)
        except ClaimsUnavailable as error:
            if not channel.repeats_are_harmless:
                return error
            return await self._send_unclaimed(delivery, channel, envelope, effect, error)
        if claim is Reached.SENT_BEFORE or claim is Reached.BURIED_BEFORE:
            effect.end = claim
        if not isinstance(claim, Granted):
            return claim
        return await self._send_claimed(delivery, channel, envelope, effect, claim)

    async def _claim(
        self, delivery: Delivery, channel: Channel, key: ClaimKey, effect: Effect
    ) -> Granted | Held | Reached:
        # Unlike any other, which is all a token must be; drawing it would cost a system call for each.
        effect.token = effect.token or f"{self._process}-{next(self._numbers)}"
        claim = await self._claims.claim(
            key,
            effect.token,
            lease_seconds=channel.timeout_seconds + LEASE_MARGIN_SECONDS,
            accepted_at=delivery.journey.accepted_at,
            place=delivery.journey.place,
        )
        if isinstance(claim, Held):
            return claim
        if isinstance(claim, Done):
            return Reached.SENT_BEFORE
        if isinstance(claim, Buried):
            return Reached.BURIED_BEFORE
        if delivery.journey.assignment.is_fenced:
            await self._let_go(delivery, key, claim, is_uncertain=claim.is_uncertain)
            return Reached.FENCED
        if self._clock() + channel.timeout_seconds > claim.holds_until:
            return Held(0.0)
        return claim

    async def _send_claimed(
        self, delivery: Delivery, channel: Channel, envelope: Envelope, effect: Effect, claim: Granted
    ) -> Result:
        key = ClaimKey(envelope.notification.id, delivery.channel, envelope.device)
        effect.token = ""
        if claim.is_uncertain:
            metrics.UNCERTAIN_RESENDS.labels(delivery.channel).inc()
        failure = await self._hand_over(delivery, channel, envelope)
        if failure is None:
            effect.end = Reached.SENT
            await self._remember(delivery, key)
            return effect.end
        await self._let_go(delivery, key, claim, is_uncertain=failure.is_uncertain or claim.is_uncertain)
        return _note_failure(effect, failure)

    async def _send_unclaimed(
        self, delivery: Delivery, channel: Channel, envelope: Envelope, effect: Effect, reason: ClaimsUnavailable
    ) -> Result:
        if delivery.journey.assignment.is_fenced:
            return Reached.FENCED
        effect.token = ""  # the store may hold a claim under it whose answer was lost
        self._complaints.about("sent without a claim: repeats are harmless on this channel", str(reason))
        metrics.UNCLAIMED_SENDS.labels(delivery.channel).inc()
        failure = await self._hand_over(delivery, channel, envelope)
        if failure is not None:
            return _note_failure(effect, failure)
        effect.end = Reached.SENT
        return effect.end

    async def _hand_over(self, delivery: Delivery, channel: Channel, envelope: Envelope) -> SendFailed | None:
        began_at = self._clock()
        failure = await self._try(delivery, channel, envelope)
        self._on_answer(delivery, failure, began_at)
        return failure

    async def _try(self, delivery: Delivery, channel: Channel, envelope: Envelope) -> SendFailed | None:
        began = time.perf_counter()
        try:
            with self._deadlines(channel.timeout_seconds).begin():
                await channel.send(envelope)
        except SendFailed as error:
            return error
        except TimeoutError:
            return TemporaryFailure(f"no answer within {channel.timeout_seconds:g} s", is_uncertain=True)
        except Exception as error:  # noqa: BLE001 - a channel's defect ends in the dead-letter topic, not in a loop
            _log.exception("a channel broke: this is a defect", **delivery.describe())
            return TemporaryFailure(f"{type(error).__name__}: {error}", is_uncertain=True, is_of_channel=False)
        finally:
            metrics.send_seconds(delivery.channel).observe(time.perf_counter() - began)
        return None

    async def _remember(self, delivery: Delivery, key: ClaimKey) -> None:
        try:
            await self._claims.mark_done(key)
        except ClaimsUnavailable as error:  # it was sent: at worst a crash before the commit repeats it, counted
            self._complaints.about("a send could not be remembered", str(error), **delivery.describe())

    async def _let_go(self, delivery: Delivery, key: ClaimKey, claim: Granted, *, is_uncertain: bool) -> None:
        try:
            await self._claims.release(key, claim.token, is_uncertain=is_uncertain)
        except ClaimsUnavailable as error:  # the claim lapses by itself
            self._complaints.about("a claim could not be released", str(error), **delivery.describe())


def decide_result(results: Sequence[Result]) -> Result:
    """Return what the devices' results mean together: what makes the delivery wait goes before what ends it.

    Of several failures that may pass, the one that asks for the longest wait counts.
    """
    if Reached.FENCED in results:
        return Reached.FENCED
    passing = [each for each in results if isinstance(each, SendFailed) and each.retriable]
    if passing:
        return max(passing, key=lambda failure: failure.retry_after_seconds or 0.0)
    for kind in (ClaimsUnavailable, Held, SendFailed):
        for result in results:
            if isinstance(result, kind):
                return result
    return next(end for end in (Reached.SENT, Reached.BURIED_BEFORE, Reached.SENT_BEFORE) if end in results)


def _address(envelope: Envelope, device: str) -> Envelope:
    return envelope if envelope.device == device else envelope._replace(device=device)


def _effect(delivery: Delivery, device: str) -> Effect:
    effect = delivery.effects.get(device)
    if effect is None:
        effect = delivery.effects[device] = Effect()
    return effect


def _note_failure(effect: Effect, failure: SendFailed) -> SendFailed:
    if isinstance(failure, PermanentFailure):
        effect.end = failure
    return failure
