from __future__ import annotations

import pytest

from tocsin_operator.scaling.candidates import (
    Load,
    assess,
    build_bounds,
    list_counts,
    measure_drain_seconds,
    measure_utilisation,
)
from tocsin_operator.scaling.model import Config, LimitedBy


def counts(partitions: int, low: int = 1, high: int = 10_000) -> tuple[int, ...]:
    return list_counts(partitions, build_bounds(Config(min_replicas=low, max_replicas=high), partitions))


def test_only_counts_that_change_the_busiest_pod_are_candidates() -> None:
    assert counts(12) == (1, 2, 3, 4, 6, 12)


def test_there_are_22_useful_counts_for_126_partitions() -> None:
    assert len(counts(126)) == 22


def test_the_lower_end_is_a_candidate_even_where_it_changes_nothing_and_the_upper_end_is_not() -> None:
    assert counts(12, 5, 11) == (5, 6)
    assert counts(12, 7, 11) == (7,)


def test_there_are_never_more_pods_than_partitions() -> None:
    assert counts(5, 1, 100)[-1] == 5


def test_a_minimum_above_the_partitions_gives_way_and_says_so() -> None:
    bounds = build_bounds(Config(min_replicas=5, max_replicas=9), 3)
    assert bounds == (3, 3, LimitedBy.PARTITIONS, LimitedBy.PARTITIONS)


def test_the_upper_end_names_what_sets_it() -> None:
    assert build_bounds(Config(max_replicas=4), 12).upper_limit is LimitedBy.MAX_REPLICAS
    assert build_bounds(Config(max_replicas=40), 12).upper_limit is LimitedBy.PARTITIONS


def test_a_useless_count_is_as_busy_as_the_one_before_it() -> None:
    load = Load(per_second=300, backlog=0, capacity_per_second=100, partitions=12)
    assert measure_utilisation(4, load) == measure_utilisation(5, load)


def test_the_drain_time_takes_what_arrives_meanwhile_into_account() -> None:
    load = Load(per_second=50, backlog=600, capacity_per_second=100, partitions=12)
    assert measure_drain_seconds(1, load) == pytest.approx(12)


def test_an_overloaded_pod_never_drains() -> None:
    assert measure_drain_seconds(1, Load(120, 10, 100, 12)) is None


def test_nothing_waits_to_drain_without_a_backlog() -> None:
    assert measure_drain_seconds(1, Load(120, 0, 100, 12)) == 0


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (Load(90, 0, 100, 12), "busiest pod at 90% of its capacity, above 85%"),
        (Load(80, 4_000, 100, 12), "drains the backlog in 200 s, later than 120 s"),
        (Load(50, 100, 100, 12), ""),
    ],
)
def test_a_candidate_says_why_it_is_refused(load: Load, words: str) -> None:
    assert assess(1, load, utilisation_limit=0.85, drain_limit_seconds=120).refusal == words
