"""The gate: one breaker per channel, and what it says, shows and counts."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tocsin_consumer.channels.base import NobodyThere, PermanentFailure, Postponed, SendFailed, TemporaryFailure
from tocsin_consumer.gate import CLOSED, OPENED, THROTTLED, Gate
from tocsin_core.breaker import FAILURES_IN_A_ROW


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(["hook", "mail"], clock=clock, draw=lambda: 0.0)


def note(gate: Gate, failure: SendFailed | None, *, count: int = 1, channel: str = "hook") -> None:
    for number in range(count):
        gate.note(channel, failure, notification_id=f"n{number}", began_at=gate._clock())


def break_down(gate: Gate) -> None:
    note(gate, TemporaryFailure("nobody answers"), count=FAILURES_IN_A_ROW)


def metric(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None
    return value


async def test_a_channel_that_is_paused_holds_back_no_other(gate: Gate) -> None:
    break_down(gate)
    assert not gate.admits("hook")
    assert gate.admits("mail")


async def test_what_belongs_to_no_channel_is_always_admitted(gate: Gate) -> None:
    break_down(gate)
    assert gate.admits("")
    assert not gate.is_holding("")


async def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(gate: Gate, clock: Clock) -> None:
    with capture_logs() as lines:
        break_down(gate)
        for _ in range(10):
            clock.now += gate.pause_seconds("hook")
            note(gate, TemporaryFailure("nobody answers"))
        clock.now += gate.pause_seconds("hook")
        note(gate, None)
    assert [line["event"] for line in lines] == [OPENED, CLOSED]
    assert (lines[0]["channel"], lines[0]["reason"]) == ("hook", "nobody answers")
    assert "no attempt is spent" in lines[0]["advice"]
    assert lines[1]["paused_seconds"] == clock.now


async def test_a_throttle_is_told_from_an_outage(gate: Gate) -> None:
    with capture_logs() as lines:
        note(gate, TemporaryFailure("HTTP 429", retry_after_seconds=30, is_throttled=True))
    assert (lines[0]["event"], lines[0]["pause_seconds"]) == (THROTTLED, 30.0)


@pytest.mark.parametrize(
    "failure",
    [
        TemporaryFailure("450 greylisted", is_of_channel=False),
        TemporaryFailure("ZeroDivisionError", is_of_channel=False, is_uncertain=True),
        PermanentFailure("HTTP 400"),
        PermanentFailure("no address", reason="no_address"),
    ],
)
async def test_a_failure_that_concerns_one_message_alone_pauses_nobody(gate: Gate, failure: SendFailed) -> None:
    note(gate, failure, count=100)
    assert gate.admits("hook")


@pytest.mark.parametrize(
    ("answer", "is_answer"),
    [
        (None, True),
        (PermanentFailure("HTTP 400"), True),
        (TemporaryFailure("450 greylisted", is_of_channel=False), True),
        (NobodyThere("nobody connected"), True),
        (Postponed("on the way"), False),
        (PermanentFailure("no address", reason="no_address"), False),
        (TemporaryFailure("ZeroDivisionError", is_of_channel=False, is_uncertain=True), False),
    ],
)
async def test_any_answer_of_the_provider_ends_its_outage_and_nothing_else_does(
    gate: Gate, clock: Clock, *, answer: SendFailed | None, is_answer: bool
) -> None:
    break_down(gate)
    clock.now += gate.pause_seconds("hook")
    note(gate, answer)
    assert gate.is_holding("hook") is not is_answer


async def test_lanes_are_told_when_a_probe_may_start() -> None:
    gate = Gate(["hook"], draw=lambda: 0.0)
    has_opened = asyncio.Event()
    gate.on_opened = has_opened.set
    note(gate, TemporaryFailure("HTTP 503"), count=FAILURES_IN_A_ROW)
    assert not gate.admits("hook")
    await asyncio.wait_for(has_opened.wait(), 10)
    assert gate.admits("hook")
    gate.close()


async def test_a_timer_that_fires_a_moment_too_early_does_not_leave_the_channel_paused_for_ever(
    gate: Gate, clock: Clock
) -> None:
    has_opened = asyncio.Event()
    gate.on_opened = has_opened.set
    break_down(gate)
    clock.now += gate.pause_seconds("hook") - 0.001
    gate._reopen("hook")
    assert not has_opened.is_set()
    clock.now += 0.001
    await asyncio.wait_for(has_opened.wait(), 10)
    assert gate.admits("hook")


async def test_the_metric_shows_the_state(gate: Gate, clock: Clock) -> None:
    assert metric("tocsin_breaker_state", channel="hook") == 0
    break_down(gate)
    assert metric("tocsin_breaker_state", channel="hook") == 2
    clock.now += gate.pause_seconds("hook")
    gate.note_start("hook", "probe")
    note(gate, None)
    assert metric("tocsin_breaker_state", channel="hook") == 0


async def test_seconds_count_as_throttled_while_a_channel_that_has_work_is_held_back(gate: Gate, clock: Clock) -> None:
    before = metric("tocsin_consumer_throttled_seconds_total")
    clock.now += 5
    gate.account(lambda _: True)
    break_down(gate)
    clock.now += 3
    gate.account(lambda channel: channel == "hook")
    clock.now += 7
    gate.account(lambda channel: channel == "mail")
    assert metric("tocsin_consumer_throttled_seconds_total") == before + 3


async def test_the_seconds_of_a_held_channel_are_counted_as_its_own(gate: Gate, clock: Clock) -> None:
    before = {name: metric("tocsin_channel_held_seconds_total", channel=name) for name in ("hook", "mail")}
    gate.account(lambda _: True)
    break_down(gate)
    clock.now += 3
    gate.account(lambda _: True)
    assert metric("tocsin_channel_held_seconds_total", channel="hook") == before["hook"] + 3
    assert metric("tocsin_channel_held_seconds_total", channel="mail") == before["mail"]


async def test_seconds_count_as_throttled_while_what_every_channel_needs_holds_work_back(
    gate: Gate, clock: Clock
) -> None:
    before = metric("tocsin_consumer_throttled_seconds_total")
    clock.now += 3
    gate.account(lambda _: False, is_stalled=True)
    clock.now += 7
    gate.account(lambda _: False)
    assert metric("tocsin_consumer_throttled_seconds_total") == before + 3
