"""When a source is asked, when it is left alone, and what callers are told meanwhile."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from directories import Clock, Source
from tocsin_core.breaker import FAILURES_IN_A_ROW, State
from tocsin_core.directory import metrics
from tocsin_core.directory.guard import CLOSED, OPENED, Guard
from tocsin_core.users import DirectoryUnavailable, Profile, ProfileInvalid


class Post:
    """A guard, its source and the time."""

    def __init__(self, *, timeout_seconds: float = 5.0) -> None:
        self.clock = Clock()
        self.source = Source(timeout_seconds=timeout_seconds)
        self.guard = Guard(self.source, clock=self.clock, draw=lambda: 0.0)

    async def fail(self, user_id: str = "1") -> str:
        with pytest.raises(DirectoryUnavailable) as caught:
            await self.guard.ask([user_id])
        return str(caught.value)

    async def break_down(self) -> None:
        self.source.go_down()
        for number in range(FAILURES_IN_A_ROW):
            await self.fail(str(number))


@pytest.fixture
async def post() -> Post:
    return Post()


async def test_answers_are_handed_on(post: Post) -> None:
    assert await post.guard.ask(["2", "77"]) == [Profile(id="2", name="User 2"), None]


async def test_after_failures_in_a_row_the_source_is_left_alone_and_callers_are_told_why_at_once(post: Post) -> None:
    with structlog.testing.capture_logs() as logs:
        await post.break_down()
    assert post.guard.state is State.OPEN
    assert post.guard.trouble == "users.test: HTTP 500"
    asked = len(post.source.asked)
    assert await post.fail() == "users.test: HTTP 500"
    assert len(post.source.asked) == asked
    assert [each["reason"] for each in logs if each["event"] == OPENED] == ["users.test: HTTP 500"]


async def test_one_user_whom_the_source_chokes_on_does_not_stand_for_all(post: Post) -> None:
    post.source.go_down()
    for _ in range(3 * FAILURES_IN_A_ROW):
        await post.fail("2")
    assert post.guard.state is State.CLOSED


async def test_broken_profiles_are_answers(post: Post) -> None:
    for number in range(1, 10):
        post.source.answers[str(number)] = ProfileInvalid("no")
        await post.guard.ask([str(number)])
    assert post.guard.state is State.CLOSED


async def test_when_the_pause_is_over_one_question_tries_it_and_an_answer_ends_the_outage(post: Post) -> None:
    await post.break_down()
    post.clock.now += 10.0
    post.source.come_back()
    post.source.is_open.clear()
    probe = asyncio.create_task(post.guard.ask(["2"]))
    await asyncio.sleep(0)
    assert await post.fail("3") == "users.test: HTTP 500"  # one at a time
    post.source.is_open.set()
    with structlog.testing.capture_logs() as logs:
        assert await probe
    assert post.guard.state is State.CLOSED
    assert [each["event"] for each in logs] == [CLOSED]
    assert post.guard.trouble == ""
    assert await post.guard.ask(["3"])


async def test_a_try_that_fails_makes_the_pause_longer_up_to_ten_seconds(post: Post) -> None:
    await post.break_down()
    pauses = []
    for _ in range(6):
        pauses.append(post.guard._breaker.pause_seconds(post.clock.now))
        post.clock.now += pauses[-1]
        await post.fail()
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]  # the lower end of 1, 2, 4, 8, 10, 10


async def test_a_source_that_says_nothing_is_given_up_after_its_time() -> None:
    post = Post(timeout_seconds=0.01)
    post.source.is_open.clear()
    assert await post.fail() == "users.test: no answer within 0.01 s"


async def test_no_more_is_asked_at_once_than_the_source_takes(post: Post) -> None:
    post.source.is_open.clear()
    asking = [asyncio.create_task(post.guard.ask([str(number)])) for number in range(1, 6)]
    await post.source.was_asked.wait()
    assert len(post.source.asked) == 2
    post.source.is_open.set()
    assert len(await asyncio.gather(*asking)) == 5


async def test_what_waits_too_long_for_its_turn_is_given_up_and_that_says_nothing_about_the_source() -> None:
    post = Post(timeout_seconds=0.01)
    await post.guard._turns.acquire()
    await post.guard._turns.acquire()
    told = [await post.fail(str(number)) for number in range(2 * FAILURES_IN_A_ROW)]
    assert set(told) == {"users.test: all 2 questions are open"}
    assert post.guard.state is State.CLOSED


async def test_a_question_that_is_abandoned_gives_its_turn_back(post: Post) -> None:
    post.source.is_open.clear()
    for _ in range(5):
        task = asyncio.create_task(post.guard.ask(["1"]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    post.source.is_open.set()
    assert await post.guard.ask(["1"])


async def test_a_probe_that_is_abandoned_lets_another_try(post: Post) -> None:
    await post.break_down()
    post.clock.now += 10.0
    post.source.come_back()
    post.source.is_open.clear()
    task = asyncio.create_task(post.guard.ask(["1"]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    post.source.is_open.set()
    assert await post.guard.ask(["1"])


async def test_the_state_is_a_metric(post: Post) -> None:
    await post.break_down()
    [sample] = next(iter(metrics.BREAKER_STATE.collect())).samples
    assert sample.value == State.OPEN.value
