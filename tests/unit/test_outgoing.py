"""A record on its way, to those who listen and to those who await."""

from __future__ import annotations

import asyncio
import gc
import itertools

import pytest

from tocsin_core.errors import KafkaUnavailable, OutcomeUnknown
from tocsin_core.outgoing import Outgoing, Stored, call_when_all_settled, wait_until_settled

STORED = Stored(3, 7)


def build() -> Outgoing:
    return Outgoing("t", (b"k", b"v", []))


def test_listeners_are_called_in_the_midst_of_settling_in_their_order_and_once() -> None:
    record, calls = build(), list[tuple[str, object]]()
    record.call_when_settled(lambda each: calls.append(("first", each.outcome)))
    record.call_when_settled(lambda each: calls.append(("second", each.outcome)))
    assert not calls
    record.settle(STORED)
    record.settle(OutcomeUnknown("late"))
    assert calls == [("first", STORED), ("second", STORED)]
    assert record.outcome is STORED


def test_who_comes_late_is_called_at_once() -> None:
    record, calls = build(), list[Outgoing]()
    record.settle(STORED)
    record.call_when_settled(calls.append)
    assert calls == [record]


def test_a_listener_that_fails_costs_the_others_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    record, calls = build(), list[Outgoing]()
    record.call_when_settled(lambda _: 1 / 0)
    record.call_when_settled(calls.append)
    record.settle(STORED)
    assert calls == [record]
    assert "ZeroDivisionError" in caplog.text


async def test_awaiting_returns_where_it_was_stored_or_raises_why_it_was_not() -> None:
    stored, failed = build(), build()
    loop = asyncio.get_running_loop()
    loop.call_soon(stored.settle, STORED)
    loop.call_soon(failed.settle, KafkaUnavailable("down"))
    assert await stored == STORED
    for _ in range(2):
        with pytest.raises(KafkaUnavailable):
            await failed


async def test_a_waiter_that_is_cancelled_changes_nothing_for_the_others() -> None:
    record = build()
    gone, patient = asyncio.ensure_future(record), asyncio.ensure_future(record)
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait((gone,))
    assert record.outcome is None
    record.settle(STORED)
    assert await patient == STORED
    assert gone.cancelled()


async def test_a_failure_that_nobody_asks_for_is_not_complained_about(caplog: pytest.LogCaptureFixture) -> None:
    record = build()
    waiter = asyncio.ensure_future(record)
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait((waiter,))
    record.settle(KafkaUnavailable("down"))
    del record, waiter
    gc.collect()
    await asyncio.sleep(0)
    assert not caplog.records


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))], ids=str)
def test_in_whatever_order_many_settle_one_call_comes_with_the_last(order: tuple[int, ...]) -> None:
    records, calls = [build() for _ in order], list[int]()
    records[order[0]].settle(STORED)
    call_when_all_settled([*records], lambda: calls.append(sum(each.outcome is None for each in records)))
    for number in order[1:]:
        assert not calls
        records[number].settle(STORED)
    assert calls == [0]


def test_nothing_to_wait_for_is_settled_already() -> None:
    calls = list[str]()
    call_when_all_settled([], lambda: calls.append("called"))
    assert calls == ["called"]


async def test_a_wait_with_a_timeout_ends_although_nothing_was_settled_and_hears_no_more_of_it() -> None:
    record = build()
    await wait_until_settled([record], timeout_seconds=0.01)
    assert record.outcome is None
    record.settle(STORED)
    await wait_until_settled([record], timeout_seconds=0.01)
