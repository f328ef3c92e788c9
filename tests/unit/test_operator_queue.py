"""The queue of keys: once each, alone each, and patient with failures."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tocsin_operator.queue import KeyQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_key_added_twice_is_taken_once() -> None:
    queue = KeyQueue(Clock())
    queue.add("a")
    queue.add("a")
    assert (queue.take(), queue.take()) == ("a", None)


def test_a_key_added_while_taken_waits_for_its_worker_and_then_comes_again() -> None:
    queue = KeyQueue(Clock())
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    assert queue.take() is None
    queue.finish("a")
    assert queue.take() == "a"


def test_failures_wait_twice_as_long_each_time_up_to_the_last() -> None:
    clock = Clock()
    queue = KeyQueue(clock, first_retry_seconds=1, last_retry_seconds=5)
    delays = []
    queue.add("a")
    for _ in range(5):
        assert queue.take() == "a"
        delays.append(queue.retry("a"))
        assert queue.take() is None
        clock.now += delays[-1]
    assert delays == [1, 2, 4, 5, 5]


def test_a_success_forgets_the_failures() -> None:
    clock = Clock()
    queue = KeyQueue(clock, first_retry_seconds=1)
    for _ in range(3):
        queue.add("a")
        queue.take()
        queue.retry("a")
    queue.add("a")
    queue.take()
    queue.finish("a")
    queue.add("a")
    queue.take()
    assert queue.retry("a") == 1


def test_news_of_a_failing_key_do_not_wait_for_its_backoff() -> None:
    queue = KeyQueue(Clock(), first_retry_seconds=60)
    queue.add("a")
    queue.take()
    queue.retry("a")
    queue.add("a")
    assert queue.take() == "a"


def test_a_later_wish_does_not_postpone_an_earlier_one() -> None:
    clock = Clock()
    queue = KeyQueue(clock)
    queue.add("a", after_seconds=5)
    queue.add("a", after_seconds=600)
    clock.now = 5
    assert queue.take() == "a"


def test_the_key_that_is_due_longest_comes_first() -> None:
    clock = Clock()
    queue = KeyQueue(clock)
    queue.add("late", after_seconds=2)
    queue.add("early", after_seconds=1)
    clock.now = 3
    assert [queue.take(), queue.take()] == ["early", "late"]


async def test_get_wakes_up_for_a_key_that_arrives_later() -> None:
    queue = KeyQueue(asyncio.get_running_loop().time)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(waiting, 5) == "a"


async def test_get_wakes_up_when_a_delayed_key_is_due() -> None:
    queue = KeyQueue(asyncio.get_running_loop().time)
    queue.add("a", after_seconds=0.01)
    assert await asyncio.wait_for(queue.get(), 5) == "a"


async def test_two_waiting_workers_get_two_keys() -> None:
    queue = KeyQueue(asyncio.get_running_loop().time)
    workers = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add("a")
    queue.add("b")
    assert sorted(await asyncio.wait_for(asyncio.gather(*workers), 5)) == ["a", "b"]


class QueueMachine(RuleBasedStateMachine):
    """Whatever happens, no key is lost, doubled or given to two workers."""

    KEYS = st.sampled_from("abc")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = KeyQueue(self.clock)
        self.taken: set[str] = set()
        self.owed: set[str] = set()

    @rule(key=KEYS, after=st.sampled_from([0.0, 1.0, 700.0]))
    def add(self, key: str, after: float) -> None:
        self.queue.add(key, after_seconds=after)
        self.owed.add(key)

    @rule(seconds=st.sampled_from([0.5, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def take(self) -> None:
        key = self.queue.take()
        if key is not None:
            assert key not in self.taken
            assert key in self.owed
            self.taken.add(key)
            self.owed.discard(key)

    @precondition(lambda self: self.taken)
    @rule(is_success=st.booleans())
    def give_back(self, is_success: bool) -> None:
        key = min(self.taken)
        self.taken.discard(key)
        if is_success:
            self.queue.finish(key)
        else:
            self.queue.retry(key)
            self.owed.add(key)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert len(self.queue) == len(self.owed)

    def teardown(self) -> None:
        for taken in self.taken:
            self.queue.finish(taken)
        self.clock.now += 10_000
        drained = set()
        while (key := self.queue.take()) is not None:
            drained.add(key)
            self.queue.finish(key)
        assert drained == self.owed


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase
