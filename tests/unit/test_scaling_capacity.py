from __future__ import annotations

import msgspec
import pytest

from scaling_cases import build_observation, replay, spread
from tocsin_operator.scaling.capacity import Capacity, estimate_capacity, remember_capacity
from tocsin_operator.scaling.model import CapacityWindow, Config, ConsumerCounters, Observation, State

CONFIG = Config(max_lag_seconds=20, interval_seconds=1, max_replicas=1)


def work(
    seconds: range, *, arriving: int, finished: int, backlog: int, spec: int = 1, ready: int | None = None
) -> list[Observation]:
    """Return looks at 12 partitions that receive and lose so many records a second, starting with a backlog."""
    looks = []
    for second in seconds:
        ends = spread(1_000_000 + arriving * second, 12)
        done = spread(1_000_000 - backlog + finished * (second - seconds.start) + arriving * seconds.start, 12)
        offsets = [(end, min(end, position)) for end, position in zip(ends, done, strict=True)]
        looks.append(build_observation(second, offsets, spec=spec, ready=ready))
    return looks


def learn(observations: list[Observation], config: Config = CONFIG, state: State | None = None) -> Capacity:
    _, state = replay(observations, config, state)
    return estimate_capacity(state, config)


def test_nothing_is_known_at_first() -> None:
    assert estimate_capacity(State(), CONFIG) == Capacity(None, "Unknown")


def test_a_hint_is_believed_at_first() -> None:
    assert estimate_capacity(State(), Config(capacity_per_second=70)) == Capacity(70, "Hint")


def test_throughput_of_a_group_that_keeps_up_teaches_nothing() -> None:
    assert learn(work(range(200), arriving=50, finished=50, backlog=25)).per_second is None


def test_throughput_of_a_group_whose_commits_come_late_teaches_nothing() -> None:
    assert learn(work(range(200), arriving=50, finished=50, backlog=500)).per_second is None


def test_throughput_while_lag_grows_is_the_capacity() -> None:
    assert learn(work(range(60), arriving=300, finished=100, backlog=0)).per_second == pytest.approx(100, rel=0.02)


def test_throughput_while_a_backlog_drains_is_the_capacity() -> None:
    watched = work(range(60), arriving=50, finished=50, backlog=1_500)
    draining = work(range(60, 75), arriving=50, finished=100, backlog=1_500)
    assert learn([*watched, *draining]).per_second == pytest.approx(100, rel=0.02)


def test_capacity_is_per_ready_replica() -> None:
    config = Config(max_lag_seconds=20, interval_seconds=1, min_replicas=4, max_replicas=4)
    looks = work(range(60), arriving=900, finished=400, backlog=0, spec=4)
    assert learn(looks, config).per_second == pytest.approx(100, rel=0.02)


def test_pods_that_are_starting_teach_nothing() -> None:
    config = Config(max_lag_seconds=20, interval_seconds=1, min_replicas=4, max_replicas=4)
    looks = work(range(60), arriving=900, finished=400, backlog=0, spec=4, ready=3)
    assert learn(looks, config).per_second is None


def test_a_few_looks_are_not_enough() -> None:
    looks = work(range(60), arriving=300, finished=100, backlog=0)
    first = next(index for index in range(3, 60) if learn(looks[:index]).per_second)
    lagging_after_seconds = 7.5  # lag in seconds grows by 2/3 a second up to 5 s, a quarter of the promise
    assert first - 1 >= lagging_after_seconds + 3


def test_a_pause_without_any_progress_is_not_taken_for_a_slow_pod() -> None:
    """A rebalance stops everybody; what is finished right after it says what a pod can do."""
    steady = work(range(30), arriving=60, finished=60, backlog=30)
    paused = work(range(30, 40), arriving=60, finished=0, backlog=30)
    after = work(range(40, 52), arriving=60, finished=100, backlog=630)
    assert learn([*steady, *paused, *after]).per_second == pytest.approx(100, rel=0.05)


def test_pods_that_became_slower_are_noticed() -> None:
    fast = State(windows=remember_capacity(100, CONFIG))
    assert learn(work(range(90), arriving=300, finished=40, backlog=0), state=fast).per_second == pytest.approx(
        40, rel=0.05
    )


def test_a_lucky_short_window_does_not_outvote_a_long_one() -> None:
    windows = (
        CapacityWindow(start_seconds=1, span_seconds=3, per_second=140),
        CapacityWindow(start_seconds=9, span_seconds=10, per_second=100),
    )
    assert estimate_capacity(State(windows=windows), CONFIG) == Capacity(100, "Observed")


def test_a_hint_that_pods_do_not_reach_is_corrected() -> None:
    config = Config(max_lag_seconds=20, interval_seconds=1, max_replicas=1, capacity_per_second=500)
    looks = work(range(90), arriving=300, finished=100, backlog=0)
    learned = learn(looks, config)
    assert learned.per_second == pytest.approx(100, rel=0.02)
    assert learned.source == "Observed"


def test_a_hint_below_what_pods_do_stays() -> None:
    config = Config(max_lag_seconds=20, interval_seconds=1, max_replicas=1, capacity_per_second=50)
    assert learn(work(range(90), arriving=300, finished=100, backlog=0), config) == Capacity(50, "Hint")


def test_records_that_expire_unread_do_not_count_as_finished() -> None:
    looks = [
        build_observation(second, [(1_000_000 + 100 * second, 10)] * 12, log_start=900_000 + 100 * second)
        for second in range(60)
    ]
    assert learn(looks).per_second is None


def test_one_lagging_partition_of_many_teaches_nothing() -> None:
    looks = [
        build_observation(
            second, [(10_000 + 10 * second, 10_000 + 10 * second)] * 11 + [(10_000 + 10 * second, 10_000)]
        )
        for second in range(60)
    ]
    assert learn(looks).per_second is None


def test_counters_that_promise_more_than_a_full_group_does_are_not_believed() -> None:
    """A pod that waits for what is not counted as busy (a slow fetch, a store) looks faster than it is."""
    looks = [
        msgspec.structs.replace(look, consumers=(count(processed=40 * second, busy=0.4 * second),))
        for second, look in enumerate(work(range(90), arriving=120, finished=40, backlog=0))
    ]
    learned = learn(looks)
    assert learned.source == "Observed"
    assert learned.per_second == pytest.approx(40, rel=0.05)


def test_counters_that_agree_with_a_full_group_are_believed() -> None:
    looks = [
        msgspec.structs.replace(look, consumers=(count(processed=40 * second, busy=0.9 * second),))
        for second, look in enumerate(work(range(90), arriving=120, finished=40, backlog=0))
    ]
    learned = learn(looks)
    assert learned.source == "Measured"
    assert learned.per_second == pytest.approx(40 / 0.9)


def count(*, processed: float, busy: float) -> ConsumerCounters:
    return ConsumerCounters(pod="pod-0", processed_total=processed, busy_slot_seconds_total=busy, concurrency=1)
