"""One round: leases, devices, and what happens without a store. The store is the model, the clock the test's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pytest

from claims_model import ModelClaims
from deliveries import build_delivery, build_envelope
from tocsin_consumer import metrics
from tocsin_consumer.channels.base import ONE_DEVICE, Envelope, PermanentFailure, TemporaryFailure
from tocsin_consumer.claims import NO_PLACE, Claim, ClaimKey, ClaimsUnavailable, Held
from tocsin_consumer.journey import Reached
from tocsin_consumer.sending import LEASE_MARGIN_SECONDS, Result, Sender, decide_result
from tocsin_core.complaints import Complaints
from tocsin_core.users import Profile

ENVELOPE = build_envelope(build_delivery(), Profile(id="2"))


class Channel:
    """Remembers what it sent; `failures` says which devices fail, and how."""

    name = "push"
    timeout_seconds = 5.0
    repeats_are_harmless = False

    def __init__(self, devices: Sequence[str] = ONE_DEVICE) -> None:
        self.names = devices
        self.failures: dict[str, Exception] = {}
        self.sent: list[str] = []

    def devices(self, _: Profile) -> Sequence[str]:
        return self.names

    async def send(self, envelope: Envelope) -> None:
        self.sent.append(envelope.device)
        if envelope.device in self.failures:
            raise self.failures[envelope.device]

    async def close(self) -> None:
        """Nothing to close."""


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class SlowClaims(ModelClaims):
    """Answers a claim so many seconds after the store has made it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.answer_seconds = 0.0
        self.is_away = False

    async def claim(
        self, key: ClaimKey, token: str, *, lease_seconds: float, accepted_at: datetime, place: str = NO_PLACE
    ) -> Claim:
        if self.is_away:
            raise ClaimsUnavailable("away")
        answer = await super().claim(key, token, lease_seconds=lease_seconds, accepted_at=accepted_at, place=place)
        self.clock.now += self.answer_seconds
        return answer

    async def mark_done(self, key: ClaimKey) -> None:
        if self.is_away:
            raise ClaimsUnavailable("away")
        await super().mark_done(key)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def claims(clock: Clock) -> SlowClaims:
    return SlowClaims(clock)


@pytest.fixture
def sender(claims: SlowClaims, clock: Clock) -> Sender:
    return Sender(claims, complaints=Complaints(lambda *_, **__: None), clock=clock)


async def test_a_claim_that_came_too_late_for_a_whole_send_is_made_again_without_any_doubt(
    sender: Sender, claims: SlowClaims
) -> None:
    channel, delivery = Channel(), build_delivery()
    claims.answer_seconds = LEASE_MARGIN_SECONDS + 0.1
    assert await sender.send(delivery, channel, ENVELOPE) == Held(0.0)
    assert (channel.sent, delivery.attempts) == ([], 0)
    claims.answer_seconds = 0.0
    assert await sender.send(delivery, channel, ENVELOPE) is Reached.SENT
    assert claims.uncertain == 0


async def test_who_slept_past_its_lease_and_was_overtaken_does_not_send(sender: Sender, claims: SlowClaims) -> None:
    channel, sleeper, other = Channel(), build_delivery(), build_delivery()
    claims.answer_seconds = 60.0
    assert isinstance(await sender.send(sleeper, channel, ENVELOPE), Held)
    claims.answer_seconds = 0.0
    assert await sender.send(other, channel, ENVELOPE) is Reached.SENT
    assert await sender.send(sleeper, channel, ENVELOPE) is Reached.SENT_BEFORE
    assert len(channel.sent) == 1


async def test_every_device_has_its_own_claim_and_one_that_fails_does_not_repeat_the_others(sender: Sender) -> None:
    channel, delivery = Channel(("phone", "tablet", "watch")), build_delivery()
    channel.failures["tablet"] = TemporaryFailure("HTTP 503")
    assert isinstance(await sender.send(delivery, channel, ENVELOPE), TemporaryFailure)
    channel.failures.clear()
    assert await sender.send(delivery, channel, ENVELOPE) is Reached.SENT
    assert sorted(channel.sent) == ["phone", "tablet", "tablet", "watch"]
    assert delivery.attempts == 2


async def test_a_device_that_fails_for_good_is_the_end_only_when_the_others_are_at_theirs(sender: Sender) -> None:
    channel, delivery = Channel(("phone", "tablet")), build_delivery()
    channel.failures |= {"phone": PermanentFailure("gone"), "tablet": TemporaryFailure("HTTP 503")}
    assert isinstance(await sender.send(delivery, channel, ENVELOPE), TemporaryFailure)
    del channel.failures["tablet"]
    assert isinstance(await sender.send(delivery, channel, ENVELOPE), PermanentFailure)
    assert channel.sent.count("phone") == 1
    assert channel.sent.count("tablet") == 2


async def test_a_delivery_taken_by_one_device_before_and_another_now_was_delivered(sender: Sender) -> None:
    await sender.send(build_delivery(), Channel(("phone",)), ENVELOPE)
    channel = Channel(("phone", "tablet"))
    assert await sender.send(build_delivery(), channel, ENVELOPE) is Reached.SENT
    assert channel.sent == ["tablet"]


async def test_a_mistake_in_the_profile_is_a_failure_for_good(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    channel, mistake = Channel(), PermanentFailure("no token", reason="no_address")

    def fail(_: Profile) -> Sequence[str]:
        raise mistake

    monkeypatch.setattr(channel, "devices", fail)
    assert await sender.send(build_delivery(), channel, ENVELOPE) is mistake


async def test_without_its_store_a_channel_whose_repeats_are_harmless_goes_on_and_is_counted(
    sender: Sender, claims: SlowClaims
) -> None:
    channel = Channel()
    channel.repeats_are_harmless = True
    claims.is_away = True
    before = metrics.UNCLAIMED_SENDS.labels("push")._value.get()
    assert await sender.send(build_delivery(), channel, ENVELOPE) is Reached.SENT
    assert metrics.UNCLAIMED_SENDS.labels("push")._value.get() == before + 1


async def test_without_its_store_no_other_channel_sends(sender: Sender, claims: SlowClaims) -> None:
    channel, delivery = Channel(), build_delivery()
    claims.is_away = True
    assert isinstance(await sender.send(delivery, channel, ENVELOPE), ClaimsUnavailable)
    assert (channel.sent, delivery.attempts) == ([], 0)


async def test_a_send_made_without_a_claim_is_not_repeated_by_the_same_delivery(
    sender: Sender, claims: SlowClaims
) -> None:
    channel, delivery = Channel(("phone", "tablet")), build_delivery()
    channel.repeats_are_harmless = True
    channel.failures["tablet"] = TemporaryFailure("HTTP 503")
    claims.is_away = True
    await sender.send(delivery, channel, ENVELOPE)
    claims.is_away = False
    channel.failures.clear()
    assert await sender.send(delivery, channel, ENVELOPE) is Reached.SENT
    assert sorted(channel.sent) == ["phone", "tablet", "tablet"]


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_partition_lost_meanwhile_is_not_sent_from(sender: Sender, claims: SlowClaims, is_away: bool) -> None:
    channel, delivery = Channel(), build_delivery()
    channel.repeats_are_harmless = True
    claims.is_away = is_away
    delivery.journey.assignment.fence()
    assert await sender.send(delivery, channel, ENVELOPE) is Reached.FENCED
    assert channel.sent == []


async def test_a_send_that_could_not_be_remembered_was_made_all_the_same(
    sender: Sender, claims: SlowClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = Channel()
    monkeypatch.setattr(claims, "mark_done", _fail)
    assert await sender.send(build_delivery(), channel, ENVELOPE) is Reached.SENT


async def _fail(*_: object) -> None:
    raise ClaimsUnavailable("away")


SOON, LATE, LASTING = (
    TemporaryFailure("503"),
    TemporaryFailure("429", retry_after_seconds=60.0),
    PermanentFailure("410"),
)
AWAY, HELD = ClaimsUnavailable("away"), Held(0.2)


@pytest.mark.parametrize(
    ("results", "together"),
    [
        ([Reached.SENT, Reached.SENT_BEFORE], Reached.SENT),
        ([Reached.SENT_BEFORE], Reached.SENT_BEFORE),
        ([Reached.SENT, LASTING], LASTING),
        ([LASTING, HELD, Reached.SENT], HELD),
        ([HELD, AWAY], AWAY),
        ([HELD, AWAY, SOON, LASTING], SOON),
        ([SOON, LATE], LATE),
        ([LATE, Reached.FENCED], Reached.FENCED),
    ],
)
def test_what_makes_a_delivery_wait_goes_before_what_ends_it(results: list[Result], together: Result) -> None:
    assert decide_result(results) is together
