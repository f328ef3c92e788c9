"""Conditions keep time honestly and events follow transitions only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tocsin_operator.conditions import Claim, build_condition, find_transitions, select_owned

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def condition(
    previous: list[dict[str, Any]], now: datetime, *, is_true: bool | None, reason: str = "R", kind: str = "Ready"
) -> dict[str, Any]:
    return build_condition(Claim(kind, is_true, reason, "m"), generation=3, previous=previous, now=now)


def test_a_first_condition_starts_now() -> None:
    assert condition([], NOON, is_true=True)["lastTransitionTime"] == "2026-11-23T12:00:00Z"


def test_another_reason_for_the_same_status_does_not_move_the_time() -> None:
    before = condition([], NOON, is_true=False, reason="ImageMissing")
    after = condition([before], LATER, is_true=False, reason="SecretMissing")
    assert after["lastTransitionTime"] == before["lastTransitionTime"]


def test_another_status_moves_the_time() -> None:
    before = condition([], NOON, is_true=False)
    assert condition([before], LATER, is_true=True)["lastTransitionTime"] == "2026-11-23T13:00:00Z"


def test_what_is_not_known_is_unknown_rather_than_false() -> None:
    assert condition([], NOON, is_true=None)["status"] == "Unknown"


def test_a_very_long_message_is_cut_to_what_the_api_server_takes() -> None:
    long = build_condition(Claim("Ready", True, "R", "x" * 99_999), generation=1, previous=[], now=NOON)
    assert len(long["message"]) <= 32_768


def test_a_repeated_condition_is_no_transition() -> None:
    before = condition([], NOON, is_true=True)
    assert find_transitions([before], [condition([before], LATER, is_true=True)]) == ()


def test_a_new_reason_is_a_transition_and_so_is_a_first_visit() -> None:
    before = condition([], NOON, is_true=False, reason="ImageMissing")
    after = condition([before], LATER, is_true=False, reason="SecretMissing")
    assert [each.reason for each in find_transitions([before], [after])] == ["SecretMissing"]
    assert [each.type for each in find_transitions([], [before])] == ["Ready"]


def test_a_writer_sees_only_its_own_part_of_the_status() -> None:
    ready = condition([], NOON, is_true=True)
    scaling = condition([], NOON, is_true=True, kind="ScalingActive")
    status = {"observedGeneration": 3, "kafka": {"partitions": 12}, "conditions": [scaling, ready]}
    assert select_owned(status, fields=["observedGeneration", "consumer"], conditions=["Ready"]) == {
        "observedGeneration": 3,
        "conditions": [ready],
    }


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=30))
def test_the_transition_time_is_that_of_the_last_change_of_status(statuses: list[bool | None]) -> None:
    current: list[dict[str, Any]] = []
    changed_at, last = NOON, object()
    for minute, status in enumerate(statuses):
        now = NOON + timedelta(minutes=minute)
        current = [condition(current, now, is_true=status)]
        changed_at, last = (changed_at, last) if status is last else (now, status)
    assert current[0]["lastTransitionTime"] == changed_at.strftime("%Y-%m-%dT%H:%M:%SZ")
