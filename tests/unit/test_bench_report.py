"""What the delivery benchmark makes of its samples and receipts."""

from __future__ import annotations

import json

import pytest

from bench.delivery.contestants import CONTESTANTS, KAFKA_GO, POLL_LOOP, TOCSIN
from bench.delivery.isolation import Pair
from bench.delivery.latency import Drained, percentile, summarise
from bench.delivery.report import (
    build_result,
    explain_asked,
    explain_isolation,
    explain_ratios,
    explain_samples,
    format_result,
)
from bench.delivery.throughput import NO_OP, Sample


def make_sample(contestant: str, scene: str, *, per_second: float = 100.0, cpu_us: float = 100.0) -> Sample:
    return Sample(contestant, scene, int(per_second * 5), 5.0, cpu_us, 10.0, 20.0, 30.0, 50.0)


def make_drained(seconds: float = 10.0, *, after: float | None = 0.01, undelivered: int = 0) -> Drained:
    return Drained(backlog=seconds, fresh=seconds, after=after, undelivered=undelivered, duplicates=0)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([5.0], 0.99) == 5.0
    assert percentile([3, 1, 2], 0.5) == 2


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile([], 0.99)


def test_latencies_count_from_the_first_delivery_and_from_when_a_fresh_one_was_meant_to_be_sent() -> None:
    receipts = {"a": [("m1_a", 100.0), ("m2_a", 102.0), ("f1_a", 105.0), ("f2_a", 108.5)]}
    drained = summarise(receipts, backlog=["m1", "m2"], fresh={"f1": 101.0, "f2": 108.0}, caught_up=106.0, ended=110.0)
    assert drained == Drained(backlog=2.0, fresh=4.0, after=0.5, undelivered=0, duplicates=0)


def test_what_never_came_counts_as_coming_when_the_run_was_cut_short() -> None:
    receipts = {"a": [("m1_a", 100.0)], "b": [("m1_b", 101.0), ("m1_b", 102.0)]}
    drained = summarise(receipts, backlog=["m1", "m2"], fresh={"f1": 103.0}, caught_up=None, ended=130.0)
    assert drained == Drained(backlog=30.0, fresh=27.0, after=None, undelivered=4, duplicates=1)
    assert not drained.is_complete


def test_a_run_in_which_nothing_came_has_no_latency_of_zero_to_boast_of() -> None:
    drained = summarise({"a": []}, backlog=["m1"], fresh={"f1": 100.0}, caught_up=None, ended=130.0)
    assert (drained.fresh, drained.undelivered) == (30.0, 2)


def test_ratios_are_taken_within_a_round_and_their_median_counts() -> None:
    samples = [
        sample
        for speed, ours in ((1.0, 900.0), (0.5, 500.0), (2.0, 1_000.0))
        for sample in (
            make_sample(TOCSIN, "50 ms", per_second=ours),
            make_sample(POLL_LOOP, "50 ms", per_second=20.0 * speed),
            make_sample(KAFKA_GO, "50 ms", per_second=10.0 * speed),
        )
    ]
    result = build_result(samples, [])
    assert result["vs_poll_loop_50ms"] == 45.0
    assert result["vs_kafka_go_50ms"] == 90.0


def test_without_a_delay_it_is_the_cpu_that_is_compared() -> None:
    samples = [
        make_sample(TOCSIN, "0 ms", per_second=50.0, cpu_us=125.0),
        make_sample(POLL_LOOP, "0 ms", per_second=5_000.0, cpu_us=100.0),
    ]
    assert build_result(samples, [])["vs_poll_loop_0ms"] == 0.8


def test_the_worst_of_the_percentiles_is_the_isolation_that_is_told() -> None:
    pairs = [Pair(make_drained(), make_drained(11.0, after=0.03))] * 3
    assert build_result([], pairs)["isolated_p99_ratio"] == 3.0


def test_what_was_not_measured_is_null_and_not_a_pass() -> None:
    result = build_result([], [])
    assert set(json.loads(format_result(result)).values()) == {None}
    assert explain_asked(result).count("not measured") == 4


def test_what_was_asked_is_judged() -> None:
    result = {
        "vs_poll_loop_0ms": 0.79,
        "vs_poll_loop_50ms": 40.0,
        "vs_kafka_go_50ms": 39.9,
        "isolated_p99_ratio": 1.5,
    }
    verdicts = [line.rpartition(": ")[2] for line in explain_asked(result).splitlines()]
    assert verdicts == ["NOT REACHED", "reached", "NOT REACHED", "reached"]


def test_a_run_that_was_cut_short_is_said_to_be_a_lower_bound() -> None:
    pairs = [
        Pair(make_drained(), make_drained(25.0, after=None, undelivered=7)),
        Pair(make_drained(), make_drained()),
    ]
    assert "1 of 4 runs were cut short with up to 7 deliveries missing" in explain_isolation(pairs)
    assert "cut short" not in explain_isolation(pairs[1:])


def test_the_tables_show_everybody_on_every_sink_and_no_ratio_without_a_sink() -> None:
    samples = [make_sample(contestant, scene) for scene in ("0 ms", NO_OP) for contestant in CONTESTANTS]
    table = explain_samples(samples)
    assert table.count("\n") == 1 + 2 * len(CONTESTANTS)
    assert len({len(line) for line in table.splitlines()}) == 1
    assert NO_OP not in explain_ratios(samples, unrated=[NO_OP])
