from __future__ import annotations

import msgspec
import pytest

from scaling_cases import EPOCH, Flow, replay
from tocsin_operator.scaling.capacity import remember_capacity
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import Config, Decision, LimitedBy, Observation, Reason, Replicas, State

CONFIG = Config(max_lag_seconds=60, interval_seconds=5, capacity_per_second=100)
UNKNOWN = msgspec.structs.replace(CONFIG, capacity_per_second=None)


def watch(flow: Flow, config: Config = CONFIG, seconds: int = 400, state: State | None = None) -> Decision:
    return replay(flow.looks(0, seconds, config.interval_seconds), config, state)[0]


# --- what is given


def test_a_suspended_pipeline_has_no_consumers() -> None:
    decision = watch(Flow(lag=9_000), msgspec.structs.replace(CONFIG, is_suspended=True))
    assert (decision.replicas, decision.reason, decision.limited_by) == (0, Reason.SUSPENDED, LimitedBy.SUSPENDED)


def test_a_suspended_pipeline_still_reports_its_lag() -> None:
    decision = watch(Flow(lag=9_000), msgspec.structs.replace(CONFIG, is_suspended=True))
    assert decision.inputs.total_lag == 9_000


def test_manual_follows_the_owner_s_number_whatever_the_lag() -> None:
    decision = watch(Flow(lag=90_000), msgspec.structs.replace(CONFIG, mode="Manual", manual_replicas=3))
    assert (decision.replicas, decision.reason, decision.inputs.total_lag) == (3, Reason.MANUAL, 90_000)


def test_a_resumed_pipeline_starts_with_what_its_load_needs() -> None:
    decision = watch(Flow(per_second=300, spec=0, lag=0))
    assert (decision.replicas, decision.reason) == (4, Reason.OUTSIDE_BOUNDS)


def test_a_number_above_the_maximum_comes_back() -> None:
    decision = watch(Flow(per_second=1, spec=20), msgspec.structs.replace(CONFIG, max_replicas=6), seconds=5)
    assert (decision.replicas, decision.limited_by) == (6, LimitedBy.MAX_REPLICAS)


def test_a_number_above_the_partitions_comes_back() -> None:
    decision = watch(Flow(per_second=1, spec=20), msgspec.structs.replace(CONFIG, max_replicas=50), seconds=5)
    assert (decision.replicas, decision.limited_by) == (12, LimitedBy.PARTITIONS)


def test_a_number_below_the_minimum_is_raised_to_it() -> None:
    decision = watch(Flow(per_second=1, spec=1), msgspec.structs.replace(CONFIG, min_replicas=3), seconds=5)
    assert (decision.replicas, decision.limited_by) == (3, LimitedBy.MIN_REPLICAS)


def test_pods_that_do_not_start_are_not_joined_by_more() -> None:
    decision = watch(Flow(per_second=500, lag=90_000, spec=2, ready=0))
    assert (decision.replicas, decision.reason) == (2, Reason.CONSUMERS_NOT_READY)


# --- outwards


def test_demand_above_capacity_goes_out_in_one_step() -> None:
    decision = watch(Flow(per_second=500, lag=2_400))
    assert (decision.replicas, decision.reason) == (6, Reason.DEMAND_EXCEEDS_CAPACITY)


def test_a_backlog_that_breaks_the_promise_goes_out_before_any_rate_is_known() -> None:
    decision, _ = decide(Flow(lag=50_000).look(0), State(), CONFIG)
    assert (decision.replicas, decision.reason) == (6, Reason.BACKLOG_TOO_LARGE)


def test_a_backlog_that_keeps_the_promise_buys_nothing() -> None:
    decision = watch(Flow(per_second=20, lag=1_000))
    assert decision.replicas == 1


def test_a_backlog_past_the_promise_that_drains_in_time_buys_nothing() -> None:
    decision, _ = decide(Flow(lag=7_000).look(0), State(), CONFIG)
    assert decision.inputs.predicted_lag_seconds == pytest.approx(70)
    assert (decision.replicas, decision.reason) == (1, Reason.DRAINING)


def test_the_last_pod_of_capacity_is_not_used() -> None:
    """At 0.85 a pod is full: 95/s each on four of twelve would be the next best, and are refused."""
    decision = watch(Flow(per_second=380, lag=6_000))
    refusals = {candidate.replicas: candidate.refusal for candidate in decision.candidates}
    assert decision.replicas == 6
    assert refusals[4] == "busiest pod at 95% of its capacity, above 85%"


def test_the_topic_s_partitions_limit_what_can_be_bought() -> None:
    decision = watch(Flow(per_second=5_000), msgspec.structs.replace(CONFIG, max_replicas=50))
    assert (decision.replicas, decision.limited_by) == (12, LimitedBy.PARTITIONS)


def test_at_the_limit_the_message_says_which_one_to_raise() -> None:
    decision = watch(Flow(per_second=5_000, spec=6), msgspec.structs.replace(CONFIG, max_replicas=6))
    assert (decision.replicas, decision.reason, decision.limited_by) == (6, Reason.AT_LIMIT, LimitedBy.MAX_REPLICAS)
    assert "raise maxReplicas" in decision.message


def test_more_demand_acts_while_pods_still_start() -> None:
    decision = watch(Flow(per_second=900, lag=42_000, spec=6, ready=2))
    assert decision.replicas == 12


def test_a_backlog_waits_for_the_pods_that_start() -> None:
    decision = watch(Flow(per_second=100, lag=200_000, spec=6, ready=2))
    assert (decision.replicas, decision.limited_by) == (6, LimitedBy.STARTING)


def test_a_backlog_is_given_its_time_after_a_scale_up() -> None:
    flow = Flow(per_second=100, lag=100_000, spec=6)
    state = State(replicas=6, last_scale_up_seconds=EPOCH)
    assert watch(flow, state=state, seconds=100).replicas == 6
    assert watch(flow, state=state, seconds=140).replicas == 12


def test_a_short_burst_that_drains_in_time_buys_nothing() -> None:
    quiet = Flow(per_second=40).looks(0, 300, 5)
    ends = quiet[-1].partitions
    burst = [
        msgspec.structs.replace(
            look,
            partitions=tuple(
                type(each)(each.partition, 0, each.log_end + 200, each.log_end - 40) for each in look.partitions
            ),
        )
        for look in Flow(per_second=40).looks(305, 310, 5)
    ]
    decision, _ = replay([*quiet, *burst], CONFIG)
    assert ends
    assert decision.replicas == 1


def test_a_backlog_that_cannot_drain_goes_out_at_half_the_promise() -> None:
    """Left alone it would be 42 s old in a while, which keeps the promise only if pods start as fast as is assumed."""
    decision = watch(Flow(per_second=110, lag=3_850))
    assert decision.inputs.predicted_lag_seconds == pytest.approx(41.7, abs=0.3)
    assert (decision.replicas, decision.reason, decision.limited_by) == (
        2,
        Reason.DEMAND_EXCEEDS_CAPACITY,
        LimitedBy.NONE,
    )


def test_a_backlog_that_cannot_drain_says_what_is_left_of_the_promise() -> None:
    assert watch(Flow(per_second=120, lag=4_200)).message == (
        "120.0/s arrive, one pod does 100.0/s (hint); 4200 waiting, the oldest 35.0 s: "
        "1 pod never drains that, and 25 s of the promised 60 s are left: 2 pods needed"
    )


def test_a_load_of_just_what_the_pods_do_never_drains_either() -> None:
    config = msgspec.structs.replace(CONFIG, capacity_per_second=120)
    assert watch(Flow(per_second=120, lag=4_200), config).replicas == 2


def test_a_backlog_that_cannot_drain_waits_until_half_the_promise_is_gone() -> None:
    assert watch(Flow(per_second=110, lag=3_190)).replicas == 1


def test_a_backlog_that_falls_buys_nothing_although_it_should_not() -> None:
    """A pod does a little more than is believed: what is seen outweighs what is computed."""
    looks = [Flow(per_second=110, lag=5_500 - 3 * seconds).look(seconds) for seconds in range(0, 405, 5)]
    decision, _ = replay(looks, CONFIG)
    assert decision.inputs.lag_seconds == pytest.approx(39, abs=1)
    assert (decision.replicas, decision.reason) == (1, Reason.WITHIN_PROMISE)


def test_a_partition_that_stands_still_is_no_backlog_that_cannot_drain() -> None:
    looks = []
    for look in Flow(per_second=120, lag=1_800).looks(0, 400, 5):
        still = msgspec.structs.replace(
            look, partitions=(type(look.partitions[0])(0, 0, look.partitions[0].log_end, 999_850), *look.partitions[1:])
        )
        looks.append(still)
    decision, _ = replay(looks, CONFIG)
    assert decision.inputs.stuck_partitions == (0,)
    assert decision.replicas == 1


def test_half_a_promise_is_no_finer_than_looks_can_see() -> None:
    """Commits come every few seconds: against a promise of eight, four seconds of lag are none."""
    config = msgspec.structs.replace(CONFIG, max_lag_seconds=8)
    assert watch(Flow(per_second=102, lag=500), config).replicas == 1


def test_a_backlog_that_cannot_drain_at_the_limit_says_so_before_the_promise_is_broken() -> None:
    decision = watch(Flow(per_second=110, lag=3_850), msgspec.structs.replace(CONFIG, max_replicas=1))
    assert (decision.replicas, decision.reason, decision.limited_by) == (1, Reason.AT_LIMIT, LimitedBy.MAX_REPLICAS)


def test_a_backlog_that_cannot_drain_only_advises_in_mode_advisory() -> None:
    decision = watch(Flow(per_second=110, lag=3_850), msgspec.structs.replace(CONFIG, mode="Advisory"))
    assert (decision.replicas, decision.advised_replicas) == (1, 2)


# --- before any capacity is known


def test_a_first_look_at_a_backlog_waits_to_learn() -> None:
    decision, _ = decide(Flow(lag=50_000).look(0), State(), UNKNOWN)
    assert (decision.replicas, decision.reason) == (1, Reason.LEARNING)


def test_lag_that_grows_without_teaching_a_capacity_goes_out_step_by_step() -> None:
    """One partition lags and the others do not, so that nothing is learned of a whole pod."""
    looks = []
    for number, look in enumerate(Flow(per_second=120).looks(0, 100, 5)):
        first = look.partitions[0]
        slow = type(first)(0, 0, first.log_end, 1_000_000 + number)
        looks.append(msgspec.structs.replace(look, partitions=(slow, *look.partitions[1:])))
    decision, state = replay(looks, UNKNOWN)
    assert state.windows == ()
    assert (decision.replicas, decision.reason, decision.limited_by) == (
        2,
        Reason.LAG_GROWING,
        LimitedBy.CAPACITY_UNKNOWN,
    )


def test_no_step_follows_another_before_there_was_time_to_learn() -> None:
    flow = Flow(per_second=120, lag=20_000, spec=2)
    state = State(replicas=2, last_scale_up_seconds=EPOCH + 95)
    decision = watch(flow, UNKNOWN, seconds=100, state=state)
    assert (decision.replicas, decision.reason) == (2, Reason.LEARNING)


def test_pods_that_nobody_needs_go_away_without_any_capacity() -> None:
    decision = watch(Flow(per_second=0, spec=8), UNKNOWN)
    assert (decision.replicas, decision.reason) == (1, Reason.FITS_IN_FEWER)


def test_pods_that_were_never_seen_busy_go_away_one_step_at_a_time() -> None:
    decision = watch(Flow(per_second=5, spec=12), UNKNOWN)
    assert (decision.replicas, decision.reason) == (6, Reason.PROBING)


# --- inwards


def test_fewer_pods_that_carry_the_peak_are_chosen_in_one_step() -> None:
    decision = watch(Flow(per_second=130, spec=12))
    assert (decision.replicas, decision.reason) == (2, Reason.FITS_IN_FEWER)


def test_going_in_needs_room_for_a_third_more() -> None:
    assert watch(Flow(per_second=71, spec=2)).replicas == 2
    assert watch(Flow(per_second=69, spec=2)).replicas == 1


def test_going_in_looks_at_the_peak_of_the_window_and_not_at_now() -> None:
    busy = Flow(per_second=400, spec=6).looks(0, 300, 5)
    start = 1_000_000 + 400 * 300 // 12
    calm = Flow(per_second=10, spec=6, offset=start - 10 * 300 // 12)
    decision, state = replay([*busy, *calm.looks(305, 590, 5)], CONFIG)
    assert decision.replicas == 6
    decision, _ = replay(calm.looks(595, 650, 5), CONFIG, state)
    assert decision.replicas == 1


def test_nothing_goes_in_before_the_window_was_seen_whole() -> None:
    decision = watch(Flow(per_second=10, spec=6), seconds=295)
    assert (decision.replicas, decision.limited_by) == (6, LimitedBy.DOWN_WINDOW)


def test_a_gap_in_the_observations_starts_the_window_again() -> None:
    flow = Flow(per_second=10, spec=6)
    decision, _ = replay([*flow.looks(0, 200, 5), *flow.looks(240, 400, 5)], CONFIG)
    assert (decision.replicas, decision.limited_by) == (6, LimitedBy.DOWN_WINDOW)


def test_nothing_goes_in_during_the_cooldown() -> None:
    state = State(replicas=6, last_scale_seconds=EPOCH + 300)
    decision = watch(Flow(per_second=10, spec=6), state=state)
    assert (decision.replicas, decision.limited_by) == (6, LimitedBy.COOLDOWN)
    assert "cooldown for another 20 s" in decision.message


def test_nothing_goes_in_while_pods_start() -> None:
    decision = watch(Flow(per_second=10, spec=6, ready=5))
    assert (decision.replicas, decision.limited_by) == (6, LimitedBy.STARTING)


def test_nothing_goes_in_while_ready_pods_are_not_members_yet() -> None:
    looks = [msgspec.structs.replace(look, members=5) for look in Flow(per_second=10, spec=6).looks(0, 400, 5)]
    assert replay(looks, CONFIG)[0].limited_by is LimitedBy.STARTING


def test_nothing_goes_in_while_lag_is_above_a_quarter_of_the_promise() -> None:
    decision = watch(Flow(per_second=50, lag=800, spec=6))
    assert (decision.replicas, decision.reason) == (6, Reason.WAITING_TO_SCALE_IN)


def test_a_change_by_hand_within_the_range_starts_the_cooldown() -> None:
    before = Flow(per_second=10, spec=1).looks(0, 400, 5)
    by_hand = Flow(per_second=10, spec=4)
    decision, state = replay([*before, *by_hand.looks(405, 520, 5)], CONFIG)
    assert decision.replicas == 4
    decision, _ = replay(by_hand.looks(525, 530, 5), CONFIG, state)
    assert decision.replicas == 1


def test_transaction_markers_at_the_end_of_every_partition_are_not_lag() -> None:
    decision = watch(Flow(per_second=0, lag=12, spec=6))
    assert decision.replicas == 1


# --- explained


def test_a_decision_carries_what_it_was_made_from() -> None:
    inputs = watch(Flow(per_second=500, lag=1_200)).inputs
    assert (inputs.partitions, inputs.total_lag, inputs.max_partition_lag) == (12, 1_200, 100)
    assert inputs.arrival_per_second == pytest.approx(500, rel=0.01)
    assert (inputs.capacity_per_second, inputs.capacity_source) == (100, "Hint")
    assert inputs.lag_seconds == pytest.approx(2.4, abs=0.2)


def test_a_message_says_load_capacity_lag_and_what_follows() -> None:
    assert watch(Flow(per_second=500, lag=2_400)).message == (
        "500.0/s arrive, one pod does 100.0/s (hint); 2400 waiting, the oldest 4.8 s: "
        "1 pod would let lag reach 65 s, 60 s are promised: 6 pods needed"
    )


def test_the_predicted_drain_time_is_that_of_the_chosen_count() -> None:
    decision, _ = decide(Flow(lag=50_000).look(0), State(), CONFIG)
    assert decision.drain_seconds == pytest.approx(50_000 / 6 / 100, rel=0.01)


def test_a_decision_is_small_json_and_comes_back_the_same() -> None:
    decision = watch(Flow(per_second=500, lag=1_200))
    encoded = msgspec.json.encode(decision)
    assert len(encoded) < 2_000
    assert msgspec.json.decode(encoded, type=type(decision)) == decision


def test_a_recorded_decision_replays_from_its_recorded_inputs() -> None:
    look, config = Flow(per_second=500, lag=1_200).look(405), CONFIG
    _, state = replay(Flow(per_second=500, lag=1_200).looks(0, 400, 5), config)
    recorded = [msgspec.json.encode(value) for value in (look, state, config)]
    again = decide(
        msgspec.json.decode(recorded[0], type=Observation),
        msgspec.json.decode(recorded[1], type=State),
        msgspec.json.decode(recorded[2], type=Config),
    )
    assert again == decide(look, state, config)


def test_a_restored_capacity_is_used_at_once() -> None:
    state = State(windows=remember_capacity(100, UNKNOWN))
    decision, _ = decide(Flow(lag=50_000).look(0), state, UNKNOWN)
    assert (decision.replicas, decision.inputs.capacity_source) == (6, "Observed")


def test_the_observation_has_room_for_consumers_counters() -> None:
    look = Flow().look(0)
    assert (look.consumers, look.members, look.replicas) == (None, None, Replicas(spec=1, ready=1))
