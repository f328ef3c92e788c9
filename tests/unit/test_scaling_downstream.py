"""Rule 8: pods that do not raise what the group finishes are given back, and tried again later."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from scaling_cases import EPOCH, build_observation, replay
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import (
    Ceiling,
    Config,
    ConsumerCounters,
    Decision,
    LimitedBy,
    Observation,
    Reason,
    State,
)

CONFIG = Config(max_lag_seconds=30, interval_seconds=5, capacity_per_second=100, max_replicas=12)
SETTLE = int(CONFIG.startup_seconds + CONFIG.effect_seconds) + 5


@dataclass
class World:
    """A topic that receives 800 a second, pods that do 100 each, and a downstream that takes no more than `ceiling`."""

    ceiling: float = 300.0
    per_second: float = 800.0
    replicas: int = 2
    throttled_share: float = 0.0
    now: int = 0
    arrived: float = 0.0
    finished: float = 0.0
    state: State = field(default_factory=State)
    decisions: list[Decision] = field(default_factory=list)

    def run(self, seconds: int) -> None:
        for _ in range(0, seconds, 5):
            self.now += 5
            self.arrived += 5 * self.per_second
            self.finished = min(self.arrived, self.finished + 5 * min(self.ceiling, 100 * self.replicas))
            decision, self.state = decide(self.look(), self.state, CONFIG)
            self.decisions.append(decision)
            self.replicas = decision.replicas

    def scale_out(self) -> int:
        """Go on until the number rises; return it."""
        before = self.replicas
        while self.replicas == before:
            self.run(5)
        return self.replicas

    def look(self) -> Observation:
        offsets = [(int(self.arrived / 12), int(self.finished / 12))] * 12
        counters = tuple(
            ConsumerCounters(
                pod=f"pod-{number}",
                processed_total=self.now * 100,
                busy_slot_seconds_total=self.now * 64,
                concurrency=64,
                throttled_seconds_total=self.now * self.throttled_share,
            )
            for number in range(self.replicas)
        )
        look = build_observation(self.now, offsets, spec=self.replicas)
        return msgspec.structs.replace(look, consumers=counters) if self.throttled_share else look

    @property
    def last(self) -> Decision:
        return self.decisions[-1]


def test_a_scale_up_that_raises_what_is_finished_stands() -> None:
    world = World(ceiling=10_000)
    world.run(600)
    assert world.state.ceiling is None
    assert world.replicas == 12


def test_an_interruption_while_partitions_change_hands_is_no_ceiling() -> None:
    world = World(ceiling=10_000)
    before = world.scale_out()
    world.ceiling = 0.0  # whoever gives partitions away first waits for a request that hangs
    world.run(60)
    assert world.state.ceiling is None
    world.ceiling = 10_000
    world.run(120)
    assert world.state.ceiling is None
    assert {each.reason for each in world.decisions}.isdisjoint({Reason.DOWNSTREAM_BOUND})
    assert world.replicas >= before


def test_what_stays_interrupted_is_a_ceiling_in_the_end() -> None:
    world = World(ceiling=10_000)
    world.scale_out()
    world.ceiling = 50.0
    world.run(400)
    assert world.state.ceiling is not None


def test_a_scale_up_without_effect_is_taken_back() -> None:
    world = World(ceiling=200)
    world.run(SETTLE + 60)
    assert max(decision.replicas for decision in world.decisions) == 12
    assert (world.last.replicas, world.last.reason) == (2, Reason.DOWNSTREAM_BOUND)
    assert world.last.limited_by is LimitedBy.DOWNSTREAM


def test_what_the_downstream_takes_is_said() -> None:
    world = World(ceiling=200)
    world.run(SETTLE + 60)
    assert "the downstream takes 200.0/s" in world.last.message
    assert world.last.inputs.ceiling_per_second == 200


def test_a_ceiling_is_probed_with_one_step_and_each_time_later() -> None:
    world = World(ceiling=200)
    world.run(2_400)
    ups = [
        index * 5
        for index, decision in enumerate(world.decisions)
        if decision.is_action and decision.replicas == 3 and decision.inputs.replicas == 2
    ]
    gaps = [later - earlier for earlier, later in pairwise(ups)]
    assert len(ups) >= 2
    assert all(gap >= 2 * CONFIG.ceiling_seconds for gap in gaps)
    assert gaps == sorted(gaps)


def test_a_downstream_that_takes_more_again_is_used_at_once() -> None:
    world = World(ceiling=200)
    world.run(SETTLE + 60)
    world.ceiling = 10_000
    world.run(900)
    assert world.replicas == 12


def test_pods_under_a_ceiling_run_below_their_own_speed() -> None:
    state = State(nominal_per_second=100.0)
    world = World(ceiling=450, replicas=6, state=state)
    world.run(SETTLE + 100)
    assert world.last.reason is Reason.DOWNSTREAM_BOUND
    assert world.replicas == 6


def test_providers_that_hold_the_pods_back_need_no_experiment() -> None:
    world = World(ceiling=200, throttled_share=0.8)
    world.run(60)
    assert max(decision.replicas for decision in world.decisions[4:]) == 2
    assert world.last.reason is Reason.DOWNSTREAM_BOUND
    assert world.last.inputs.throttled_share is not None
    assert world.last.inputs.throttled_share > 0.5


def test_a_backlog_that_grows_slowly_under_a_ceiling_buys_no_more_than_one_that_grows_fast() -> None:
    world = World(ceiling=200, throttled_share=0.8, per_second=210)
    world.run(480)
    assert world.last.inputs.lag_seconds is not None
    assert CONFIG.max_lag_seconds / 2 < world.last.inputs.lag_seconds < CONFIG.max_lag_seconds
    assert (world.last.replicas, world.last.reason) == (2, Reason.DOWNSTREAM_BOUND)


def test_nothing_is_bought_while_nothing_finishes() -> None:
    looks = [build_observation(second, [(1_000 + 10 * second, 1_000)] * 12, spec=2) for second in range(0, 900, 5)]
    decision, _ = replay(looks, CONFIG)
    assert (decision.replicas, decision.reason) == (2, Reason.NOTHING_FINISHES)
    assert "consumers' logs" in decision.message


def test_a_ceiling_becomes_small_json() -> None:
    world = World(ceiling=200)
    world.run(SETTLE + 60)
    assert world.state.ceiling is not None
    assert world.state.ceiling.until_seconds > EPOCH
    encoded = msgspec.json.encode(world.state.ceiling)
    assert len(encoded) < 200
    assert msgspec.json.decode(encoded, type=Ceiling) == world.state.ceiling
