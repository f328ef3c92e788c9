"""Questions that are asked once for everybody, many at a time, and never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog

from directories import Source
from tocsin_core.directory import lookups
from tocsin_core.directory.lookups import Lookups, Outcome
from tocsin_core.users import DirectoryUnavailable, Profile, ProfileInvalid


class Desk:
    """Lookups at a source, and what came of each."""

    def __init__(self) -> None:
        self.source = Source(max_ids=3)
        self.outcomes: list[tuple[str, Outcome]] = []
        self.lookups = Lookups(
            self.source.ask, max_ids=3, on_outcome=lambda user_id, outcome: self.outcomes.append((user_id, outcome))
        )

    async def find_all(self, *user_ids: str) -> list[Profile | BaseException | None]:
        return await asyncio.gather(*map(self.lookups.find, user_ids), return_exceptions=True)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    await desk.lookups.close()


async def begin(desk: Desk, user_id: str) -> asyncio.Task[Profile | None]:
    """Return a task that waits for an answer that is being held up."""
    desk.source.is_open.clear()
    task = asyncio.create_task(desk.lookups.find(user_id))
    await desk.source.was_asked.wait()
    return task


async def test_what_is_asked_for_at_once_goes_out_together(desk: Desk) -> None:
    found = await desk.find_all("1", "2", "3", "4", "77")
    assert [each.id if isinstance(each, Profile) else each for each in found] == ["1", "2", "3", "4", None]
    assert desk.source.asked == [["1", "2", "3"], ["4", "77"]]


async def test_everybody_who_wants_to_know_the_same_waits_for_one_question(desk: Desk) -> None:
    first = await begin(desk, "2")
    rest = [asyncio.create_task(desk.lookups.find("2")) for _ in range(50)]
    await asyncio.sleep(0)
    desk.source.is_open.set()
    answers = await asyncio.gather(first, *rest)
    assert answers == [Profile(id="2", name="User 2")] * 51
    assert desk.source.asked == [["2"]]
    assert len(desk.outcomes) == 1


async def test_a_user_is_asked_about_again_once_the_answer_is_there(desk: Desk) -> None:
    await desk.find_all("2")
    await desk.find_all("2")
    assert desk.source.asked == [["2"], ["2"]]


async def test_one_who_gives_up_takes_no_answer_from_the_others(desk: Desk) -> None:
    impatient = await begin(desk, "2")
    patient = asyncio.create_task(desk.lookups.find("2"))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    desk.source.is_open.set()
    assert await patient == Profile(id="2", name="User 2")


async def test_a_source_that_is_down_is_told_to_each_who_asked(desk: Desk) -> None:
    desk.source.go_down()
    found = await desk.find_all("1", "2")
    assert [str(each) for each in found] == ["users.test: HTTP 500"] * 2
    assert {type(outcome) for _, outcome in desk.outcomes} == {DirectoryUnavailable}


async def test_one_broken_profile_spoils_no_other_answer(desk: Desk) -> None:
    desk.source.answers["2"] = ProfileInvalid("user '2': email")
    one, two = await desk.find_all("1", "2")
    assert isinstance(one, Profile)
    assert isinstance(two, ProfileInvalid)


async def test_a_defect_of_a_source_leaves_nobody_waiting(desk: Desk) -> None:
    desk.source.failure = ZeroDivisionError()
    with structlog.testing.capture_logs() as logs:
        [found] = await desk.find_all("1")
    assert isinstance(found, DirectoryUnavailable)
    assert logs[0]["log_level"] == "error"


async def test_more_questions_than_are_bearable_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "MAX_OPEN", 1)
    waiting = await begin(desk, "1")
    [refused] = await desk.find_all("2")
    assert isinstance(refused, DirectoryUnavailable)
    desk.source.is_open.set()
    assert await waiting


async def test_the_end_of_the_process_leaves_nobody_waiting(desk: Desk) -> None:
    sent = await begin(desk, "1")
    unsent = asyncio.create_task(desk.lookups.find("2"))
    await asyncio.sleep(0)
    await desk.lookups.close()
    for task in (sent, unsent):
        with pytest.raises(DirectoryUnavailable, match="ending"):
            await task
    assert desk.source.asked == [["1"]]
