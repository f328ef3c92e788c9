"""What a frame says, and what each verdict of the hub means for a notification."""

from __future__ import annotations

import json

import pytest

from envelopes import make_envelope
from tocsin_consumer.channels.base import NobodyThere, Postponed, SendFailed, TemporaryFailure
from tocsin_consumer.channels.websocket import build_frame, check_verdict
from tocsin_core.hub import Verdict


def test_a_frame_carries_the_notification_its_channel_and_when_it_was_accepted() -> None:
    envelope = make_envelope(title="T", data={"order": 7}, channels=["screen"])
    assert json.loads(build_frame(envelope, channel="screen")) == {
        "id": envelope.notification.id,
        "fromID": "1",
        "toID": "2",
        "message": "hi",
        "title": "T",
        "data": {"order": 7},
        "channel": "screen",
        "acceptedAt": "2026-07-14T12:00:00Z",
    }


def test_a_frame_leaves_out_what_the_notification_has_not() -> None:
    assert {"title", "data"}.isdisjoint(json.loads(build_frame(make_envelope(), channel="screen")))


def test_a_frame_sent_again_is_the_same_bytes() -> None:
    assert build_frame(make_envelope(), channel="s") == build_frame(make_envelope(), channel="s")


def test_delivered_is_no_failure() -> None:
    check_verdict(Verdict.DELIVERED)


@pytest.mark.parametrize(
    ("verdict", "failure", "is_uncertain"),
    [
        (Verdict.NOBODY, NobodyThere, False),
        (Verdict.MOVING, Postponed, False),
        (Verdict.UNSURE, Postponed, False),
        (Verdict.STALLED, TemporaryFailure, True),
        (Verdict.UNANSWERED, TemporaryFailure, True),
    ],
)
def test_every_other_verdict_says_what_may_have_arrived(
    verdict: Verdict, failure: type[SendFailed], is_uncertain: bool
) -> None:
    with pytest.raises(failure) as caught:
        check_verdict(verdict)
    assert caught.value.is_uncertain is is_uncertain
