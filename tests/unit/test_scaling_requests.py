"""Ingestion by requests per second: the minute's mean, a panic, the five minutes' peak, and Kafka as the bottleneck."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin_operator.scaling.counters import parse_ingestion
from tocsin_operator.scaling.model import Replicas
from tocsin_operator.scaling.requests import (
    PodRequests,
    RequestConfig,
    RequestDecision,
    RequestLook,
    RequestReason,
    RequestState,
    decide_requests,
)

CONFIG = RequestConfig(min_replicas=1, max_replicas=10, target_per_second=100)


@dataclass
class Ingestion:
    """Pods that share what arrives, and a scaler that looks every three seconds."""

    config: RequestConfig = CONFIG
    replicas: int = 1
    kafka_wait_seconds: float = 0.0
    unreadable: int = 0
    unready: int = 0
    now: float = 1_000.0
    totals: list[float] = field(default_factory=lambda: [0.0] * 20)
    state: RequestState = field(default_factory=RequestState)
    decisions: list[RequestDecision] = field(default_factory=list)

    def run(self, seconds: float, per_second: float) -> RequestDecision:
        for _ in range(int(seconds / 3)):
            self.now += 3
            serving = self.replicas - self.unready
            for pod in range(serving):
                self.totals[pod] += 3 * per_second / serving
            decision, self.state = decide_requests(self.look(), self.state, self.config)
            self.decisions.append(decision)
            self.replicas = decision.replicas
        return self.decisions[-1]

    def look(self) -> RequestLook:
        ready = self.replicas - self.unready
        pods = tuple(self.read(each) for each in range(ready - self.unreadable))
        return RequestLook(time_seconds=self.now, replicas=Replicas(spec=self.replicas, ready=ready), pods=pods)

    def read(self, pod: int) -> PodRequests:
        return PodRequests(
            pod=f"pod-{pod}", requests_total=self.totals[pod], kafka_wait_seconds=self.kafka_wait_seconds
        )


def test_pods_follow_the_minute_s_mean() -> None:
    ingestion = Ingestion()
    assert ingestion.run(120, 350).replicas == 4


def test_a_short_burst_below_twice_the_target_buys_nothing() -> None:
    ingestion = Ingestion(replicas=2)
    ingestion.run(60, 100)
    ingestion.run(6, 380)
    assert ingestion.replicas == 2


def test_a_burst_of_twice_the_target_is_met_within_seconds() -> None:
    ingestion = Ingestion(replicas=2)
    ingestion.run(60, 100)
    decision = ingestion.run(6, 900)
    assert ingestion.replicas == 9
    assert RequestReason.BURST in {each.reason for each in ingestion.decisions}
    assert decision.replicas == 9


def test_pods_that_wait_for_kafka_are_not_joined_by_more() -> None:
    ingestion = Ingestion(kafka_wait_seconds=2.5)
    decision = ingestion.run(120, 900)
    assert (decision.replicas, decision.reason) == (1, RequestReason.KAFKA_BOUND)
    assert "wait 2.5 s for Kafka" in decision.message


def test_pods_leave_once_five_minutes_need_fewer() -> None:
    ingestion = Ingestion()
    ingestion.run(120, 700)
    assert ingestion.replicas == 7
    ingestion.run(240, 90)
    assert ingestion.replicas == 7
    decision = ingestion.run(180, 90)
    assert decision.replicas == 1
    assert RequestReason.FITS_IN_FEWER in {each.reason for each in ingestion.decisions}


def test_a_pod_that_cannot_be_read_is_taken_for_one_like_the_others_and_keeps_all() -> None:
    ingestion = Ingestion(replicas=4)
    ingestion.run(600, 380)
    ingestion.unreadable = 2
    decision = ingestion.run(600, 120)
    assert decision.replicas == 4
    assert decision.reason is RequestReason.WAITING
    assert "only 2 of 4 pods could be read" in decision.message


def test_pods_that_cannot_be_read_hold_the_number() -> None:
    ingestion = Ingestion(replicas=4, unreadable=4)
    decision = ingestion.run(900, 10)
    assert (decision.replicas, decision.reason) == (4, RequestReason.NOT_READABLE)


def test_a_pod_that_started_again_counts_from_its_start() -> None:
    ingestion = Ingestion()
    ingestion.run(60, 90)
    ingestion.totals[0] = 0.0
    assert ingestion.run(60, 90).replicas == 1


@pytest.mark.parametrize("silent_seconds", [3, 60, 590])
@pytest.mark.parametrize("trouble", ["unreadable", "unready"])
def test_a_pod_that_comes_back_brings_no_burst_with_it(trouble: str, silent_seconds: int) -> None:
    ingestion = Ingestion(replicas=2)
    ingestion.run(3_600, 120)
    setattr(ingestion, trouble, 1)
    ingestion.run(silent_seconds, 120)
    setattr(ingestion, trouble, 0)
    ingestion.run(60, 120)
    assert ingestion.replicas == 2
    assert RequestReason.BURST not in {each.reason for each in ingestion.decisions}
    assert max(peak.per_second for peak in ingestion.state.peaks) == pytest.approx(120)


def test_a_pod_that_started_again_while_it_was_not_read_brings_no_burst_with_it() -> None:
    ingestion = Ingestion(replicas=2, unreadable=1)
    ingestion.totals[1] = 1e6
    ingestion.run(600, 120)
    ingestion.totals[1] = 0.0
    ingestion.run(60, 120)
    ingestion.unreadable = 0
    ingestion.run(60, 120)
    assert max(peak.per_second for peak in ingestion.state.peaks) == pytest.approx(120)


@pytest.mark.parametrize("silent_seconds", [3, 900])
def test_an_old_pod_that_is_read_for_the_first_time_brings_no_burst_with_it(silent_seconds: int) -> None:
    ingestion = Ingestion(replicas=2, unreadable=1)
    ingestion.totals[1] = 1e6  # it is older than the scaler
    ingestion.run(silent_seconds, 120)
    ingestion.unreadable = 0
    ingestion.run(60, 120)
    assert ingestion.replicas == 2
    assert RequestReason.BURST not in {each.reason for each in ingestion.decisions}


def test_all_pods_that_come_back_after_a_silence_start_the_window_again_without_a_burst() -> None:
    ingestion = Ingestion(replicas=2)
    ingestion.run(3_600, 120)
    ingestion.unreadable = 2
    ingestion.run(90, 120)
    ingestion.unreadable = 1
    ingestion.run(3, 120)
    ingestion.unreadable = 0
    ingestion.run(60, 120)
    assert max(peak.per_second for peak in ingestion.state.peaks) == pytest.approx(120)


def test_a_new_pod_counts_from_its_start() -> None:
    ingestion = Ingestion(replicas=1)
    ingestion.run(60, 90)
    ingestion.replicas = 2
    ingestion.run(3, 90)
    assert ingestion.state.increments[-1].requests == pytest.approx(270)


def test_pods_that_are_gone_are_forgotten() -> None:
    ingestion = Ingestion(replicas=3)
    ingestion.run(60, 250)
    ingestion.run(420, 50)
    assert (ingestion.replicas, len(ingestion.state.pods)) == (1, 3)
    ingestion.run(600, 50)
    assert [each.pod for each in ingestion.state.pods] == ["pod-0"]


def test_a_number_outside_the_range_comes_back() -> None:
    assert Ingestion(replicas=15).run(3, 0).replicas == 10


def test_each_notification_that_was_answered_counts() -> None:
    page = """\
tocsin_ingestion_accepted_total 100.0
tocsin_ingestion_accepted_created 1.7e+09
tocsin_ingestion_replayed_total 5.0
tocsin_ingestion_refused_total{reason="too-large"} 2.0
tocsin_ingestion_refused_total{reason="a } in it"} 3.0
tocsin_producer_oldest_in_flight_seconds 0.25
"""
    assert parse_ingestion("a", page) == PodRequests(pod="a", requests_total=110.0, kafka_wait_seconds=0.25)


def test_a_page_of_something_else_is_no_ingestion_pod() -> None:
    assert parse_ingestion("a", "up 1\n\nnonsense\ntocsin_ingestion_accepted_total many\n") is None


@settings(deadline=None, max_examples=50)
@given(
    loads=st.lists(st.tuples(st.integers(1, 40), st.floats(0, 5_000)), min_size=1, max_size=6),
    low=st.integers(1, 5),
    more=st.integers(0, 10),
    unreadable=st.integers(0, 2),
)
def test_the_number_stays_in_its_range_whatever_comes(
    loads: list[tuple[int, float]], low: int, more: int, unreadable: int
) -> None:
    config = RequestConfig(min_replicas=low, max_replicas=low + more, target_per_second=100)
    ingestion = Ingestion(config=config, replicas=low)
    ingestion.unreadable = min(unreadable, low)
    for looks, per_second in loads:
        ingestion.run(3 * looks, per_second)
    assert all(low <= each.replicas <= low + more for each in ingestion.decisions)
