"""The offset tracker against the plainest model there is: a dictionary of what happened to each offset."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tocsin_core.offsets import OffsetTracker


class TrackerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.next_offset = 0
        self.waiting: list[int] = []
        self.started: list[int] = []
        self.completed: set[int] = set()
        self.everything: list[int] = []
        self.highest_started = -1
        self.ceiling: int | None = None
        self.position_at_fence: int | None = None

    @initialize(offset=st.integers(0, 1000))
    def begin_somewhere(self, offset: int) -> None:
        self.next_offset = offset

    @precondition(lambda self: self.ceiling is None and not self.tracker.is_fenced)
    @rule(hole=st.sampled_from([0, 0, 0, 1, 7]))
    def admit(self, hole: int) -> None:
        offset = self.next_offset + hole
        self.tracker.admit(offset)
        self.next_offset = offset + 1
        self.waiting.append(offset)
        self.everything.append(offset)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(self.waiting))
        allowed = not self.tracker.is_fenced and (self.ceiling is None or offset <= self.ceiling)
        assert self.tracker.may_start(offset) == allowed
        if allowed:
            self.tracker.start(offset)
            self.waiting.remove(offset)
            self.started.append(offset)
            self.highest_started = max(self.highest_started, offset)

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(self.started))
        self.tracker.complete(offset)
        self.started.remove(offset)
        if not self.tracker.is_fenced:
            self.completed.add(offset)

    @rule()
    def begin_drain(self) -> None:
        self.tracker.begin_drain()
        self.ceiling = self.highest_started if self.ceiling is None else self.ceiling

    @precondition(lambda self: not self.tracker.is_fenced)
    @rule()
    def fence(self) -> None:
        self.position_at_fence = self.tracker.position
        self.tracker.fence()

    @invariant()
    def the_position_follows_the_longest_finished_prefix(self) -> None:
        expected = None
        for offset in self.everything:
            if offset not in self.completed:
                break
            expected = offset + 1
        assert self.tracker.position == expected

    @invariant()
    def nothing_unfinished_lies_below_the_position(self) -> None:
        unfinished = [offset for offset in self.everything if offset not in self.completed]
        assert all(offset >= (self.tracker.position or 0) for offset in unfinished)

    @invariant()
    def the_gap_counts_the_records_from_the_position_on(self) -> None:
        position = self.tracker.position
        assert self.tracker.gap == len([o for o in self.everything if position is None or o >= position])

    @invariant()
    def a_drain_is_over_exactly_when_all_below_its_ceiling_is_finished(self) -> None:
        ceiling = self.ceiling
        due = [] if ceiling is None else [o for o in self.everything if o <= ceiling]
        assert self.tracker.is_drained == (ceiling is not None and self.completed.issuperset(due))

    @invariant()
    def after_a_finished_drain_nothing_is_complete_above_the_position(self) -> None:
        if self.tracker.is_drained:
            assert self.tracker.finished_beyond == 0

    @invariant()
    def a_fenced_tracker_stands_still(self) -> None:
        if self.tracker.is_fenced:
            assert self.tracker.position == self.position_at_fence


TrackerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestOffsetTracker = TrackerMachine.TestCase
