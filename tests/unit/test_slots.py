"""Slots: who may send, and how busy the process was."""

from __future__ import annotations

import pytest

from tocsin_consumer.slots import Slots


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def take_all(slots: Slots, channel: str) -> int:
    taken = 0
    while slots.is_free(channel):
        slots.take(channel)
        taken += 1
    return taken


def test_one_channel_has_every_slot() -> None:
    assert take_all(Slots(10, {"a": 10}, clock=Clock()), "a") == 10


def test_a_greedy_channel_leaves_the_others_their_own_slots() -> None:
    slots = Slots(64, {"a": 64, "b": 64, "c": 64}, clock=Clock())
    assert take_all(slots, "a") == 44
    assert take_all(slots, "b") == 10
    assert take_all(slots, "c") == 10
    assert slots.in_use == 64


def test_what_belongs_to_no_channel_takes_from_what_is_shared() -> None:
    slots = Slots(64, {"a": 64, "b": 64, "c": 64}, clock=Clock())
    assert take_all(slots, "") == 34
    assert not slots.is_free("")
    assert take_all(slots, "a") == slots.guaranteed["a"] == 10


def test_a_channel_takes_no_more_than_its_own_limit_and_leaves_the_rest_to_others() -> None:
    slots = Slots(64, {"a": 4, "b": 64}, clock=Clock())
    assert take_all(slots, "a") == 4
    assert take_all(slots, "b") == 60
    assert slots.guaranteed == {"a": 4, "b": 16, "": 0}


def test_a_channel_alone_keeps_its_limit_too() -> None:
    slots = Slots(64, {"a": 4}, clock=Clock())
    assert take_all(slots, "a") == 4
    assert slots.is_free("")


@pytest.mark.parametrize("concurrency", [1, 2, 3, 5])
def test_few_slots_are_all_usable_by_any_channel_or_leave_each_at_least_one(concurrency: int) -> None:
    slots = Slots(concurrency, {"a": concurrency, "b": concurrency}, clock=Clock())
    take_all(slots, "a")
    take_all(slots, "b")
    assert slots.in_use == concurrency


def test_a_slot_that_is_not_free_cannot_be_taken() -> None:
    slots = Slots(1, {"a": 1}, clock=Clock())
    slots.take("a")
    with pytest.raises(RuntimeError, match="no slot is free for channel 'a'"):
        slots.take("a")


def test_busy_time_is_counted_per_slot_and_not_while_nothing_is_sent() -> None:
    clock = Clock()
    slots = Slots(4, {"a": 4}, clock=clock)
    clock.now = 5.0
    slots.take("a")
    slots.take("a")
    clock.now = 7.0
    slots.release("a")
    clock.now = 8.0
    slots.release("a")
    clock.now = 20.0
    assert slots.busy_seconds == 2 * 2.0 + 1.0


def test_a_long_send_shows_before_it_ends() -> None:
    clock = Clock()
    slots = Slots(4, {"a": 4}, clock=clock)
    slots.take("a")
    clock.now = 3.0
    assert slots.busy_seconds == 3.0
