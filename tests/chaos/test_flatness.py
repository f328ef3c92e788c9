"""Whether a soak came to rest."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest

from chaos.census import Census, count
from chaos.flatness import judge_flatness


def censuses(rss: list[int], held: list[int]) -> list[Census]:
    return [
        Census(at, size, 1000, {"Engine._held": entries})
        for at, (size, entries) in enumerate(zip(rss, held, strict=True))
    ]


def test_a_run_that_warms_up_and_comes_to_rest_is_flat() -> None:
    verdict = judge_flatness(censuses([50, 80, 100, 100, 101, 99, 102, 101], [0, 500, 900, 100, 500, 900, 800, 100]))
    assert verdict.rss_ratio == pytest.approx(1.015)
    assert verdict.is_flat


def test_memory_that_grows_is_not_flat() -> None:
    assert not judge_flatness(censuses([100, 100, 100, 102, 104, 106, 108, 110], [0] * 8)).is_flat


def test_a_container_that_grows_is_named_even_where_memory_does_not_show_it() -> None:
    verdict = judge_flatness(censuses([100] * 8, [0, 50, 100, 150, 200, 250, 300, 350]))
    assert verdict.growing == {"Engine._held": (125.0, 325.0)}
    assert not verdict.is_flat


def test_too_few_censuses_are_refused() -> None:
    with pytest.raises(ValueError, match="eight"):
        judge_flatness(censuses([100] * 7, [0] * 7))


@dataclass
class Part:
    names: list[str] = field(default_factory=lambda: ["a", "b"])
    queues: dict[str, deque[int]] = field(default_factory=lambda: {"a": deque([1, 2, 3]), "b": deque([4])})


Part.__module__ = "tocsin_somewhere"


@dataclass
class Whole:
    parts: list[Part] = field(default_factory=lambda: [Part(), Part()])


Whole.__module__ = "tocsin_somewhere"


def test_a_census_sums_every_container_that_can_be_reached_by_class_and_attribute() -> None:
    assert count(Whole()) == {"Whole.parts": 2, "Part.names": 4, "Part.queues": 4, "Part.queues[]": 8}
