"""Rule 3 for channels: one that is held back buys nothing, is named, and hides nothing of the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec
import pytest

from scaling_cases import EPOCH, build_observation
from tocsin_core.lag import PartitionOffsets
from tocsin_operator.scaling.busy import measure_busy
from tocsin_operator.scaling.channels import measure_kept
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import (
    Config,
    ConsumerCounters,
    Decision,
    Hold,
    Observation,
    Reason,
    State,
)
from tocsin_operator.scaling.ports import Report, Target
from tocsin_operator.scaling.record import build_record, restore_state
from tocsin_operator.scaling.report import build_claims, build_status

CONFIG = Config(
    max_lag_seconds=60, interval_seconds=5, capacity_per_second=100, max_replicas=12, channels=("hook", "mail")
)
POD_PER_SECOND = 100.0
START = 1_000


@dataclass
class World:
    """A topic whose notifications go to a hook and by mail; pods do a hundred a second on each, unless held back.

    `limits` is what a channel's provider takes in a second, whoever sends.
    """

    config: Config = CONFIG
    per_second: float = 150.0
    replicas: int = 2
    partitions: int = 12
    limits: dict[str, float] = field(default_factory=dict)
    reads_pods: bool = False
    knows_why: bool = True
    follows: bool = True
    now: int = 0
    arrived: float = 0.0
    finished: dict[str, float] = field(default_factory=lambda: {"hook": 0.0, "mail": 0.0})
    held_seconds: dict[str, float] = field(default_factory=lambda: {"hook": 0.0, "mail": 0.0})
    state: State = field(default_factory=State)
    decisions: list[Decision] = field(default_factory=list)

    def run(self, seconds: int) -> World:
        for _ in range(0, seconds, 5):
            self.now += 5
            self.arrived += 5 * self.per_second
            for name in self.finished:
                self._work(name, POD_PER_SECOND * self.replicas)
            decision, self.state = decide(self.look(), self.state, self.config)
            self.decisions.append(decision)
            if self.follows:
                self.replicas = decision.replicas
        return self

    def _work(self, name: str, able_per_second: float) -> None:
        limit = self.limits.get(name, able_per_second)
        self.finished[name] = min(self.arrived, self.finished[name] + 5 * min(limit, able_per_second))
        if limit < able_per_second and self.finished[name] < self.arrived:
            self.held_seconds[name] += 5 * (1 - limit / able_per_second)

    def look(self) -> Observation:
        end = START + int(self.arrived / self.partitions)
        stands = {name: START + int(done / self.partitions) for name, done in self.finished.items()}
        committed = min(stands.values())
        leads = {name: position - committed for name, position in {**stands, "": end}.items()}
        looked = build_observation(self.now, [(end, committed)] * self.partitions, spec=self.replicas)
        offsets = tuple(replace(each, leads=leads if any(leads.values()) else {}) for each in looked.partitions)
        counters = tuple(self._count(number) for number in range(self.replicas)) if self.reads_pods else None
        return msgspec.structs.replace(looked, partitions=offsets, consumers=counters)

    def _count(self, number: int) -> ConsumerCounters:
        return ConsumerCounters(
            pod=f"pod-{number}",
            processed_total=min(self.finished.values()) / self.replicas,
            busy_slot_seconds_total=self.now * 32,
            concurrency=64,
            throttled_seconds_total=max(self.held_seconds.values()) if self.knows_why else 0.0,
            held_seconds=dict(self.held_seconds) if self.knows_why else dict.fromkeys(self.held_seconds, 0.0),
        )

    @property
    def last(self) -> Decision:
        return self.decisions[-1]

    @property
    def most(self) -> int:
        return max(each.replicas for each in self.decisions)

    @property
    def holds(self) -> dict[str, Hold | None]:
        return {each.name: each.hold for each in self.last.inputs.channels}


@pytest.mark.parametrize("reads_pods", [False, True])
@pytest.mark.parametrize("promise_seconds", [20, 60, 600])
def test_a_channel_whose_provider_is_down_buys_no_pods(reads_pods: bool, promise_seconds: int) -> None:
    config = msgspec.structs.replace(CONFIG, max_lag_seconds=promise_seconds)
    world = World(config=config, reads_pods=reads_pods).run(400)
    world.limits["hook"] = 0
    world.run(3_000)
    assert world.holds == {"hook": Hold.PROVIDER if reads_pods else Hold.STANDING_STILL, "mail": None}
    assert world.most <= 2


def test_lag_is_told_for_each_channel_and_the_pipeline_s_is_the_slowest_one_s() -> None:
    world = World().run(400)
    world.limits["hook"] = 0
    world.run(120)
    hook, mail = world.last.inputs.channels
    assert (hook.name, hook.lag, mail.lag) == ("hook", world.last.inputs.total_lag, 0)
    assert hook.lag_seconds == world.last.inputs.lag_seconds
    assert hook.lag_seconds == pytest.approx(120, abs=2)


def test_a_channel_that_is_down_does_not_hide_that_the_others_need_pods() -> None:
    world = World().run(400)
    world.limits["hook"] = 0
    world.run(300)
    world.per_second = 700
    world.run(120)
    assert world.replicas == 12
    assert world.last.inputs.channels[1].lag_seconds < CONFIG.max_lag_seconds


def test_a_channel_that_is_down_does_not_keep_the_others_pods() -> None:
    world = World(replicas=6)
    world.limits["hook"] = 0
    world.run(600)
    assert (world.replicas, world.decisions[-1].reason) == (3, Reason.WITHIN_PROMISE)


def test_a_held_channel_is_named_with_what_waits_for_the_others() -> None:
    world = World().run(400)
    world.limits["hook"] = 0
    world.run(60)
    assert "standing still while others move: hook; 0 waiting for the other channels" in world.last.message


def test_a_channel_that_is_slow_is_no_held_channel_and_gets_its_pods() -> None:
    world = World(per_second=450, replicas=1, config=msgspec.structs.replace(CONFIG, capacity_per_second=None))
    world.finished["mail"] = 0
    world.limits["mail"] = 450
    world.run(600)
    assert set(world.holds.values()) == {None}
    assert world.replicas >= 6


@pytest.mark.parametrize("reads_pods", [False, True])
def test_a_channel_that_goes_on_counts_again_and_no_commit_seems_to_have_gone_back(reads_pods: bool) -> None:
    world = World(reads_pods=reads_pods).run(400)
    world.limits["hook"] = 0
    world.run(1_000)
    del world.limits["hook"]
    world.run(600)
    assert all(each.is_trusted for each in world.decisions)
    assert world.most > 2, "its backlog is the pods' to drain now"
    assert set(world.holds.values()) == {None}
    assert world.last.inputs.total_lag == 0


def test_where_all_channels_are_down_none_is_left_out_and_nothing_is_bought() -> None:
    world = World().run(400)
    world.limits = {"hook": 0, "mail": 0}
    world.run(100)
    assert set(world.holds.values()) == {None}
    assert (world.last.reason, world.replicas) == (Reason.NOTHING_FINISHES, 2)


def test_a_channel_that_is_down_keeps_its_pod_although_nothing_else_is_to_do() -> None:
    world = World(config=msgspec.structs.replace(CONFIG, min_replicas=0), reads_pods=True).run(100)
    world.limits["hook"] = 0
    world.run(100)
    world.per_second = 0
    world.run(2_000)
    assert world.replicas == 1
    assert world.last.inputs.channels[0].lag > 0


def test_a_throttled_channel_keeps_the_pods_that_its_provider_has_work_for() -> None:
    world = World(per_second=400, replicas=12, reads_pods=True)
    world.limits["hook"] = 220
    world.finished["mail"] = 0
    world.run(300)
    world.per_second = 260
    world.run(1_200)
    assert world.most == 12
    assert world.replicas * POD_PER_SECOND >= 220


def test_a_channel_that_stands_still_while_its_pods_know_no_reason_keeps_no_pods() -> None:
    world = World(replicas=6, reads_pods=True, knows_why=False)
    world.limits["hook"] = 0
    world.run(900)
    assert world.holds["hook"] is Hold.STANDING_STILL
    assert world.replicas < 6


def test_pods_kept_for_a_provider_are_those_whose_time_it_takes() -> None:
    world = World(replicas=10, reads_pods=True, follows=False)
    world.limits["hook"] = 150
    world.per_second = 400
    world.run(120)
    busy_shares = world.last.inputs.throttled_share
    assert busy_shares == pytest.approx(0.85)
    assert world.holds["hook"] is Hold.PROVIDER
    assert measure_kept(world.state, measure_busy(world.state), 10) == 2


def test_what_pods_can_do_is_not_learned_from_what_a_held_channel_lets_through() -> None:
    world = World(reads_pods=True).run(400)
    before = world.last.inputs.capacity_per_second
    world.limits["hook"] = 5
    world.run(600)
    assert world.last.inputs.capacity_per_second == pytest.approx(before, rel=0.1)


def test_a_held_channel_outlives_the_process_that_found_it() -> None:
    world = World(reads_pods=True).run(400)
    world.limits["hook"] = 0
    world.run(600)
    status = {"scaling": build_record(world.last, world.state)}
    assert status["scaling"]["heldChannels"] == [{"name": "hook", "reason": "Provider"}]
    world.state = restore_state(status, CONFIG)
    world.decisions.clear()
    world.run(600)
    assert world.most <= 2
    assert all("hook" in each.inputs.held_channels for each in world.decisions)


def test_a_channel_that_was_held_and_goes_on_while_nobody_looked_counts_again() -> None:
    world = World()
    world.limits["hook"] = 0
    world.run(400)
    world.state = restore_state({"scaling": build_record(world.last, world.state)}, CONFIG)
    del world.limits["hook"]
    world.run(15)
    assert world.state.held_channels == frozenset()


def test_pods_that_cannot_be_read_any_more_leave_the_word_to_the_commits() -> None:
    world = World(reads_pods=True).run(400)
    world.limits["hook"] = 0
    world.run(200)
    world.reads_pods = False
    world.run(600)
    assert world.holds["hook"] is Hold.STANDING_STILL
    assert world.most <= 2


def test_one_channel_alone_is_never_left_out() -> None:
    world = World(config=msgspec.structs.replace(CONFIG, channels=("hook",))).run(100)
    world.limits["hook"] = 0
    world.run(300)
    assert (world.last.inputs.channels, world.state.held_channels) == ((), frozenset())


def test_a_channel_that_the_commit_does_not_know_stands_where_the_foremost_does() -> None:
    offsets = PartitionOffsets(0, 0, 100, 10, {"hook": 0, "": 70})
    assert (offsets.position_of("hook"), offsets.position_of("new")) == (10, 80)


def test_without_a_commit_every_channel_starts_where_the_log_does() -> None:
    offsets = PartitionOffsets(0, 40, 100, None)
    assert offsets.position_of("hook") == offsets.leave_out({"hook"}).position == 40


def build_report(world: World) -> Report:
    target = Target("ns/orders", "u1", "kafka:9092", "ns.orders", "orders", CONFIG)
    return Report(target, EPOCH + world.now, world.look(), world.last, world.state)


@pytest.mark.parametrize(("reads_pods", "reason"), [(True, "ChannelHeldBack"), (False, "ChannelStuck")])
def test_a_held_channel_is_a_condition_of_its_own_and_stands_in_the_status(reads_pods: bool, reason: str) -> None:
    world = World(reads_pods=reads_pods).run(400)
    world.limits["hook"] = 0
    world.run(300)
    report = build_report(world)
    claim = build_claims(report)[3]
    assert (claim.type, claim.is_true, claim.reason) == ("ChannelsMoving", False, reason)
    assert "channel hook" in claim.message
    hook, mail = build_status(report, {})["kafka"]["channels"]
    assert (hook["name"], hook["lag"], mail) == (
        "hook",
        world.last.inputs.total_lag,
        {"name": "mail", "lag": 0, "lagSeconds": 0.0},
    )


def test_channels_that_all_move_are_said_to() -> None:
    claim = build_claims(build_report(World().run(100)))[3]
    assert (claim.is_true, claim.reason) == (True, "AllMoving")
