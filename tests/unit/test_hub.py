"""What both sides of the hub agree on: verdicts, batches, names."""

from __future__ import annotations

import msgspec
import pytest

from tocsin_core.errors import MessageError
from tocsin_core.hub import (
    Answer,
    Asked,
    HubKeys,
    Request,
    Taken,
    Verdict,
    decide_verdict,
    decode_answers,
    decode_requests,
    encode,
    parse_asked,
)

NOBODY_ASKED = Asked(pods=0, silent=0, is_settled=True)
TAKEN, ABSENT, LEAVING, STALLED = Taken.TAKEN, Taken.ABSENT, Taken.LEAVING, Taken.STALLED


@pytest.mark.parametrize(
    ("asked", "answers", "verdict"),
    [
        (NOBODY_ASKED, [], Verdict.NOBODY),
        (Asked(1, 0, True), [ABSENT], Verdict.NOBODY),
        (Asked(1, 0, True), [TAKEN], Verdict.DELIVERED),
        (Asked(3, 0, True), [TAKEN], Verdict.DELIVERED),
        (Asked(2, 1, False), [STALLED, TAKEN], Verdict.DELIVERED),
        (Asked(2, 0, True), [ABSENT], Verdict.UNANSWERED),
        (Asked(2, 0, True), [STALLED, ABSENT], Verdict.STALLED),
        (Asked(2, 0, True), [LEAVING, ABSENT], Verdict.MOVING),
        (Asked(1, 1, True), [ABSENT], Verdict.MOVING),
        (Asked(0, 1, True), [], Verdict.MOVING),
        (Asked(0, 0, False), [], Verdict.UNSURE),
        (Asked(1, 0, False), [ABSENT], Verdict.UNSURE),
    ],
)
def test_one_socket_is_enough_and_absence_must_be_certain(asked: Asked, answers: list[Taken], verdict: Verdict) -> None:
    assert decide_verdict(asked, answers) is verdict


def test_requests_joined_by_the_script_are_read_with_their_frames_untouched() -> None:
    frame = '{"message":"grüße, \\"2\\"],["}'.encode()
    requests = [Request("consumer", number, "2", msgspec.Raw(frame)) for number in (1, 2)]
    batch = b"[" + b",".join(encode(request) for request in requests) + b"]"
    decoded = decode_requests(batch)
    assert [(each.number, each.user_id, bytes(each.frame)) for each in decoded] == [(1, "2", frame), (2, "2", frame)]


def test_answers_come_back_as_they_were() -> None:
    answers = [Answer(1, TAKEN), Answer(2, ABSENT)]
    assert decode_answers(encode(answers)) == answers


@pytest.mark.parametrize("decode", [decode_requests, decode_answers])
@pytest.mark.parametrize("data", [b"", b"{}", b'[["c"]]', b'[[1,"unheard of"]]', b"\xff"])
def test_bytes_of_another_version_are_an_error_of_ours(decode: object, data: bytes) -> None:
    assert callable(decode)
    with pytest.raises(MessageError, match=r"of the hub"):
        decode(data)


def test_what_the_script_returns_is_told_per_request() -> None:
    assert parse_asked([1, 2, 0, 0, 1]) == [Asked(2, 0, True), Asked(0, 1, True)]


def test_all_names_of_a_pipeline_are_in_one_slot_of_a_cluster() -> None:
    keys = HubKeys("shop/orders")
    names = [keys.watch, keys.pods, keys.pod_channels, keys.user("2"), keys.answers("c")]
    assert all(name.startswith("tocsin:{shop/orders}:hub:") for name in names)
    assert len(set(names)) == len(names)
