"""What the ingestion benchmark makes of its measurements."""

from __future__ import annotations

from bench.ingestion.contestants import BATCH, GIN_SARAMA, ONE, TOCSIN
from bench.ingestion.pause import Paused, find_recovery
from bench.ingestion.report import build_result, build_table
from bench.ingestion.stage import Load, Measured


def measured(name: str, load: Load, *, server: float, broker: float = 10.0, p99: float = 5.0) -> Measured:
    answer = {"p50_ms": 1.0, "p99_ms": p99, "p999_ms": 9.0}
    return Measured(name, load, 1_000, 2.0, server, broker, 50.0, answer)


def single(connections: int, rate: float = 0.0) -> Load:
    return Load(ONE, connections, 2.0, rate=rate)


def one_round(server: float) -> list[Measured]:
    return [
        measured(TOCSIN, single(64), server=server, broker=30.0),
        measured(TOCSIN, single(256), server=server / 2),
        measured(TOCSIN, Load(BATCH, 16, 2.0, batch=100), server=8.0),
        measured(GIN_SARAMA, single(64), server=100.0),
        measured(GIN_SARAMA, single(256), server=80.0),
        measured(TOCSIN, single(256, rate=500.0), server=server, p99=6.0),
        measured(GIN_SARAMA, single(256, rate=500.0), server=100.0, p99=4.0),
    ]


def test_a_ratio_is_the_median_of_the_rounds_at_the_worse_number_of_connections() -> None:
    result = build_result([one_round(server) for server in (50.0, 80.0, 200.0)], [])
    assert result == {
        "single_vs_gin_sarama": 1.25,
        "batch_vs_gin_sarama": 10.0,
        "broker_cpu_vs_gin_sarama": 3.0,
        "p99_vs_gin_sarama": 1.5,
        "memory_vs_gin_sarama": 1.0,
        "lost_after_pause": None,
    }


def test_what_was_not_measured_is_none() -> None:
    result = build_result([[measured(TOCSIN, single(64), server=50.0)]], [])
    assert set(result.values()) == {None}


def test_losses_are_summed_over_the_pauses() -> None:
    pauses = [Paused(seconds, {}, lost, 1.0, 1.0, 50.0, 0.01) for seconds, lost in ((2.0, 1), (15.0, 2))]
    assert build_result([], pauses)["lost_after_pause"] == 3


def test_the_table_has_a_line_per_contestant_and_kind_of_run() -> None:
    assert len(build_table([one_round(50.0), one_round(60.0)])) == 1 + 7


def test_a_server_has_recovered_when_half_a_second_brings_nothing_but_202s_at_nearly_the_rate() -> None:
    buckets = {str(number): {"503": 5} for number in range(40)} | {str(number): {"202": 5} for number in range(44, 80)}
    assert find_recovery(buckets, 1.0, rate=100.0) == 43 * 0.05
    assert find_recovery({"0": {"503": 1}}, 0.0, rate=100.0) == float("inf")
