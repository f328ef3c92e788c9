"""Crashes, stalls, lost answers and a forgetful store, in every order: nothing is lost, every repeat is counted.

The machine drives the real `Sender` and the real `OffsetTracker` of several processes that follow each other on one
partition, against the model of the store. Every step that takes time in the world (a request on its way to the store,
its answer on its way back, a send on its way to the provider, its answer, a backoff) is a gate; the machine decides
which gate opens next, how, and what breaks meanwhile. The clock is the machine's, so a process that is not stepped
while it advances is a stopped one: its claims lapse, and somebody else may go on in its place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from claims_model import ModelClaims
from deliveries import build_delivery, build_envelope
from tocsin_consumer.channels.base import Envelope, PermanentFailure, TemporaryFailure
from tocsin_consumer.claims import NO_PLACE, Claim, ClaimKey, ClaimsUnavailable
from tocsin_consumer.journey import Reached
from tocsin_consumer.sending import Sender
from tocsin_core.assignment import Assignment
from tocsin_core.complaints import Complaints
from tocsin_core.offsets import OffsetTracker
from tocsin_core.users import Profile

START_SECONDS = 1_800_000_000.0
TIMEOUT_SECONDS = 1_000.0
"""How long a send may take, on the machine's clock; the event loop's own never gets there."""
SETTLE_TURNS = 8
MAX_RECORDS = 4
"""Few, so that the machine does more than read: what goes wrong goes wrong with two."""
ANSWERED, BACKED_OFF = ("answered",), ("backed off",)
ONE, TWO = ("",), ("phone", "tablet")
STORE_FATES = ["works", "the request is lost", "the answer is lost"]
SEND_FATES = ["taken", "refused", "refused for good", "taken in silence", "lost in silence"]


@dataclass(eq=False)
class Process:
    """One consumer. It owns the partition until it is fenced, whatever the group thinks."""

    assignment: Assignment
    next_offset: int
    tracker: OffsetTracker
    gates: list[tuple[Sequence[str], asyncio.Future[str]]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def gate(self, fates: Sequence[str]) -> str:
        """Wait until the machine says how this step goes."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        entry = (fates, future)
        self.gates.append(entry)
        try:
            return await future
        finally:
            self.gates.remove(entry)


class RemoteClaims:
    """The shared store as one process sees it: over a network that loses requests and answers."""

    trouble = ""

    def __init__(self, store: ModelClaims, process: Process) -> None:
        self._store = store
        self._process = process

    async def start(self) -> None:
        """Nothing to start."""

    async def claim(
        self, key: ClaimKey, token: str, *, lease_seconds: float, accepted_at: datetime, place: str = NO_PLACE
    ) -> Claim:
        async with self._network():
            return await self._store.claim(
                key, token, lease_seconds=lease_seconds, accepted_at=accepted_at, place=place
            )

    async def mark_done(self, key: ClaimKey) -> None:
        async with self._network():
            await self._store.mark_done(key)

    async def mark_buried(self, key: ClaimKey, *, place: str) -> None:
        async with self._network():
            await self._store.mark_buried(key, place=place)

    async def release(self, key: ClaimKey, token: str, *, is_uncertain: bool) -> None:
        async with self._network():
            await self._store.release(key, token, is_uncertain=is_uncertain)

    async def close(self) -> None:
        """Nothing to close."""

    @asynccontextmanager
    async def _network(self) -> AsyncIterator[None]:
        fate = await self._process.gate(STORE_FATES)
        if fate == "the request is lost":
            raise ClaimsUnavailable(fate)
        yield
        await self._process.gate(ANSWERED)
        if fate == "the answer is lost":
            raise ClaimsUnavailable(fate)


class Provider:
    """The channel of one process. What arrives is written down for all."""

    name = "push"
    timeout_seconds = TIMEOUT_SECONDS
    repeats_are_harmless = False

    def __init__(self, process: Process, receipts: Counter[tuple[str, str]]) -> None:
        self._process = process
        self._receipts = receipts

    def devices(self, profile: Profile) -> Sequence[str]:
        return TWO if profile.id == "two" else ONE

    async def send(self, envelope: Envelope) -> None:
        fate = await self._process.gate(SEND_FATES)
        if fate in ("taken", "taken in silence"):
            self._receipts[envelope.notification.id, envelope.device] += 1
        await self._process.gate(ANSWERED)
        if fate == "refused":
            raise TemporaryFailure("HTTP 503")
        if fate == "refused for good":
            raise PermanentFailure("HTTP 410")
        if fate.endswith("in silence"):
            raise TemporaryFailure("no answer", is_uncertain=True)

    async def close(self) -> None:
        """Nothing to close."""


class EffectOnceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = START_SECONDS
        self.store = ModelClaims(lambda: self.now)
        self.accepted_at: list[float] = []
        self.committed = 0
        self.receipts: Counter[tuple[str, str]] = Counter()
        self.dead_letters: set[int] = set()
        self.processes: list[Process] = []

    @initialize(records=st.integers(1, 3))
    def begin(self, records: int) -> None:
        self.accepted_at = [self.now] * records
        self._take_over()

    @property
    def owner(self) -> Process:
        return self.processes[-1]

    @precondition(lambda self: len(self.accepted_at) < MAX_RECORDS)
    @rule()
    def accept_a_notification(self) -> None:
        self.accepted_at.append(self.now)

    @precondition(lambda self: any(process.gates for process in self.processes))
    @rule(seconds=st.sampled_from([0.001, 500.0, TIMEOUT_SECONDS + 20.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.owner.next_offset < len(self.accepted_at))
    @rule(steps=st.sampled_from([0, 2, 4]))
    def take_a_record(self, steps: int) -> None:
        """Take it, and let it come to its claim, to its send, or to its end."""
        self._admit(self.owner)
        self._go_on(self.owner, steps)

    @precondition(lambda self: self.owner.gates)
    @rule(data=st.data(), steps=st.sampled_from([0, 0, 1, 10]))
    def let_the_owner_take_a_step(self, data: st.DataObject, steps: int) -> None:
        self._step(self.owner, data, steps)

    @precondition(lambda self: any(process.gates for process in self.processes[:-1]))
    @rule(data=st.data(), steps=st.sampled_from([0, 0, 1, 10]))
    def let_a_former_owner_take_a_step(self, data: st.DataObject, steps: int) -> None:
        former = [process for process in self.processes[:-1] if process.gates]
        self._step(data.draw(st.sampled_from(former)), data, steps)

    @precondition(lambda self: (self.owner.tracker.position or 0) > self.committed)
    @rule()
    def commit(self) -> None:
        self.committed = max(self.committed, self.owner.tracker.position or 0)

    @precondition(lambda self: self.owner.next_offset > self.committed)
    @rule(way=st.sampled_from(["crash", "loss that the owner has not noticed", "graceful hand-over"]))
    def give_the_partition_to_another(self, way: str) -> None:
        if way == "crash":
            self._kill(self.owner)
        elif way == "graceful hand-over":
            self._finish(self.owner)
            assert self.owner.tracker.is_drained
            self.commit()
            self.owner.assignment.fence()
        self._take_over()

    @precondition(lambda self: any(process.gates for process in self.processes[:-1]))
    @rule(data=st.data())
    def let_a_former_owner_notice(self, data: st.DataObject) -> None:
        former = [process for process in self.processes[:-1] if process.gates]
        data.draw(st.sampled_from(former)).assignment.fence()

    @precondition(lambda self: self.receipts)
    @rule()
    def flush_the_store(self) -> None:
        self.loop.run_until_complete(self.store.flush())

    @invariant()
    def every_repeat_is_counted(self) -> None:
        assert self._count_duplicates() <= self.store.uncertain

    @invariant()
    def nothing_committed_is_lost(self) -> None:
        assert all(self._is_ended(offset) for offset in range(self.committed))

    def teardown(self) -> None:
        try:
            self._kill_all()
            self._take_over()
            while self.owner.next_offset < len(self.accepted_at):
                self._admit(self.owner)
            self._finish(self.owner)
            self.commit()
            assert self.committed == len(self.accepted_at)
            assert all(self._is_ended(offset) for offset in range(self.committed))
            assert self._count_duplicates() <= self.store.uncertain
        finally:
            self._kill_all()
            self.loop.close()

    def _take_over(self) -> None:
        assignment = Assignment("orders", 0, len(self.processes))
        assignment.open(["push"], self.committed)
        self.processes.append(Process(assignment, self.committed, assignment.cursors["push"]))

    def _admit(self, process: Process) -> None:
        offset = process.next_offset
        process.next_offset += 1
        process.tracker.admit(offset)
        process.tracker.start(offset)
        process.tasks.append(self.loop.create_task(self._deliver(process, offset)))
        self._settle()

    async def _deliver(self, process: Process, offset: int) -> None:
        accepted_at = datetime.fromtimestamp(self.accepted_at[offset], UTC)
        delivery = build_delivery(offset, assignment=process.assignment, accepted_at=accepted_at)
        envelope = build_envelope(delivery, Profile(id="two" if offset % 2 else "one"))
        sender = Sender(
            RemoteClaims(self.store, process), complaints=Complaints(lambda *_, **__: None), clock=lambda: self.now
        )
        channel = Provider(process, self.receipts)
        while True:
            result = await sender.send(delivery, channel, envelope)
            if result is Reached.FENCED:
                return
            if isinstance(result, PermanentFailure):
                self.dead_letters.add(offset)
                await sender.remember_burial(delivery)
            if result is Reached.BURIED_BEFORE:
                assert offset in self.dead_letters
            if isinstance(result, PermanentFailure | Reached):
                process.tracker.complete(offset)
                return
            await process.gate(BACKED_OFF)

    def _finish(self, process: Process) -> None:
        process.assignment.begin_drain()
        for _ in range(1_000):
            if not process.gates:
                return
            self._go_on(process)
        raise AssertionError("a process does not come to an end")

    def _step(self, process: Process, data: st.DataObject, steps: int) -> None:
        """Let one step go as it may, and so many after it go well."""
        fates, future = data.draw(st.sampled_from(process.gates))
        future.set_result(data.draw(st.sampled_from(fates)))
        self._settle()
        self._go_on(process, steps)

    def _go_on(self, process: Process, steps: int = 1) -> None:
        """Let steps go well; where all wait for time to pass, let it pass: others' claims lapse in the end."""
        for _ in range(steps):
            ready = [gate for gate in process.gates if gate[0] != BACKED_OFF]
            if not ready:
                self.now += TIMEOUT_SECONDS
            for fates, future in ready[:1] or list(process.gates):
                future.set_result(fates[0])
            self._settle()

    def _settle(self) -> None:
        self.loop.run_until_complete(_turns(SETTLE_TURNS))

    def _kill(self, process: Process) -> None:
        for task in process.tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.wait_for(_gather(process.tasks), 10))
        assert not process.gates

    def _kill_all(self) -> None:
        for process in self.processes:
            self._kill(process)

    def _count_duplicates(self) -> int:
        return sum(count - 1 for count in self.receipts.values())

    def _is_ended(self, offset: int) -> bool:
        devices = TWO if offset % 2 else ONE
        return offset in self.dead_letters or all(self.receipts[_id_of(offset), device] for device in devices)


def _id_of(offset: int) -> str:
    return f"n{offset}"


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _gather(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


EffectOnceMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestEffectOnce = EffectOnceMachine.TestCase
