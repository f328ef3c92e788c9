"""Rule 4 with the consumers' counters: speed is what was finished in the time spent busy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scaling_cases import Flow
from tocsin_operator.scaling.busy import measure_busy, note_counters
from tocsin_operator.scaling.capacity import Capacity, estimate_capacity
from tocsin_operator.scaling.model import Config, ConsumerCounters, State


def counters(pod: str, processed: float, busy: float, **more: Any) -> ConsumerCounters:
    return ConsumerCounters(pod=pod, processed_total=processed, busy_slot_seconds_total=busy, concurrency=10, **more)


def note(*looks: tuple[ConsumerCounters, ...] | None) -> State:
    state = State()
    for number, each in enumerate(looks):
        state = note_counters(msgspec.structs.replace(Flow().look(5 * number), consumers=each), state)
    return state


def capacity(state: State) -> Capacity:
    return estimate_capacity(state, Config(capacity_per_second=7))


def test_speed_is_what_was_finished_over_the_time_spent_busy() -> None:
    state = note((counters("a", 0, 0),), (counters("a", 100, 10),))
    assert capacity(state) == Capacity(100, "Measured")
    busy = measure_busy(state)
    assert busy is not None
    assert busy.share == pytest.approx(0.2)


def test_cpu_time_counts_where_it_is_more_than_the_slots() -> None:
    state = note((counters("a", 0, 0, cpu_seconds_total=1),), (counters("a", 100, 10, cpu_seconds_total=5),))
    assert capacity(state).per_second == pytest.approx(25)


def test_a_channel_of_several_that_is_held_back_teaches_nothing_of_speed() -> None:
    held = [counters("a", 10 * look, look, held_seconds={"hook": 5.0 * look, "mail": 0.0}) for look in range(4)]
    state = note(*[(each,) for each in held])
    busy = measure_busy(state)
    assert busy is not None
    assert busy.held_shares == {"hook": 1.0, "mail": 0.0}
    assert capacity(state) == Capacity(7, "Hint")


def test_the_one_channel_there_is_teaches_although_it_is_held_back() -> None:
    held = [counters("a", 100 * look, 10 * look, held_seconds={"hook": 2.0 * look}) for look in range(4)]
    assert capacity(note(*[(each,) for each in held])).per_second == pytest.approx(100)


def test_idle_pods_teach_nothing() -> None:
    assert capacity(note((counters("a", 0, 0),), (counters("a", 20, 1),))) == Capacity(7, "Hint")


def test_what_was_measured_is_kept_while_pods_are_idle() -> None:
    state = note((counters("a", 0, 0),), (counters("a", 100, 10),), *[(counters("a", 100, 10),)] * 20)
    assert capacity(state).per_second == pytest.approx(100)


def test_a_pod_that_started_again_is_left_out_once() -> None:
    state = note((counters("a", 500, 80), counters("b", 0, 0)), (counters("a", 3, 1), counters("b", 100, 10)))
    assert capacity(state).per_second == pytest.approx(100)


def test_a_pod_that_is_new_counts_from_its_second_look() -> None:
    state = note((counters("a", 0, 0),), (counters("a", 100, 10), counters("b", 9_000, 1)))
    assert capacity(state).per_second == pytest.approx(100)


def test_without_readable_pods_the_hint_holds() -> None:
    assert capacity(note((counters("a", 0, 0),), (counters("a", 100, 10),), ())) == Capacity(7, "Hint")


def test_between_two_counts_the_last_one_holds() -> None:
    state = note((counters("a", 0, 0),), (counters("a", 100, 10),), None, None, None)
    assert capacity(state) == Capacity(100, "Measured")


def test_counters_that_nobody_read_for_a_minute_are_forgotten() -> None:
    state = note((counters("a", 0, 0),), (counters("a", 100, 10),), *[None] * 14)
    assert capacity(state) == Capacity(7, "Hint")


def test_a_full_pod_does_not_say_what_it_could_do_alone() -> None:
    state = note((counters("a", 0, 0),), (counters("a", 100, 45),))
    assert state.nominal_per_second is None


def test_time_held_back_by_a_provider_is_a_share_of_all_pods_time() -> None:
    state = note((counters("a", 0, 0),), (counters("a", 10, 1, throttled_seconds_total=4),))
    busy = measure_busy(state)
    assert busy is not None
    assert busy.throttled_share == pytest.approx(0.8)
