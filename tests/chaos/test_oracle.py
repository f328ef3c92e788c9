"""The oracle itself: every way in which a pipeline can break its promise is seen, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chaos.oracle import Breach, Counts, Delivery, Evidence, Promise, Receipt, Sent, examine, find_late, judge

ONE_CHANNEL = ("hook",)


def sent(recipient: str, sequence: int, channels: tuple[str, ...] = ONE_CHANNEL) -> Sent:
    return Sent(f"{recipient}-{sequence}", recipient, sequence, channels)


def receipt(recipient: str, sequence: int, *, channel: str = "hook", is_taken: bool = True) -> Receipt:
    return Receipt(f"{recipient}-{sequence}", channel, recipient, sequence, is_taken)


def broken(evidence: Evidence, **promise: Any) -> list[str]:
    """Return the reasons alone."""
    return [reason for reason, _ in judge(examine(evidence, Promise(**promise)), Promise(**promise))]


def test_what_arrived_once_and_in_order_keeps_every_promise() -> None:
    evidence = Evidence([sent("a", 1), sent("a", 2), sent("b", 1)], [receipt("a", 1), receipt("b", 1), receipt("a", 2)])
    assert examine(evidence, Promise()).counts == Counts(sent=3)
    assert broken(evidence, is_graceful=True, max_uncertain=0) == []


def test_a_delivery_is_owed_on_every_channel() -> None:
    evidence = Evidence([sent("a", 1, ("hook", "mail"))], [receipt("a", 1)])
    assert examine(evidence, Promise()).lost == (Delivery("a-1", "mail"),)
    assert examine(evidence, Promise()).counts.sent == 2


def test_what_neither_arrived_nor_was_buried_is_lost() -> None:
    evidence = Evidence([sent("a", 1), sent("a", 2)], [receipt("a", 2)], dead_letters={Delivery("b-1", "hook")})
    lost = (Delivery("a-1", "hook"),)
    assert judge(examine(evidence, Promise()), Promise()) == [Breach("1 deliveries were lost", lost)]


def test_a_refused_attempt_is_no_delivery() -> None:
    assert examine(Evidence([sent("a", 1)], [receipt("a", 1, is_taken=False)]), Promise()).counts.lost == 1


def test_a_dead_letter_is_an_end_but_only_where_one_is_expected() -> None:
    evidence = Evidence([sent("a", 1)], [], dead_letters={Delivery("a-1", "hook")})
    assert examine(evidence, Promise()).counts == Counts(sent=1, dead_lettered=1)
    assert broken(evidence, may_bury=True) == []
    assert broken(evidence) == ["1 dead letters, none expected"]


def test_duplicates_are_the_receipts_beyond_the_first_of_each_delivery() -> None:
    receipts = [receipt("a", 1), receipt("a", 1), receipt("a", 1), receipt("a", 1, channel="mail")]
    findings = examine(Evidence([sent("a", 1, ("hook", "mail"))], receipts), Promise())
    assert findings.counts.duplicates == 2
    assert findings.repeated == (Delivery("a-1", "hook"),)


def test_a_refused_attempt_before_the_one_that_was_taken_is_no_duplicate() -> None:
    receipts = [receipt("a", 1, is_taken=False), receipt("a", 1)]
    assert examine(Evidence([sent("a", 1)], receipts), Promise()).counts == Counts(sent=1)


@pytest.mark.parametrize(
    ("uncertain", "is_graceful", "is_kept"), [(1, False, True), (0, False, False), (1, True, False)]
)
def test_a_duplicate_is_excused_by_an_uncertain_send_and_by_nothing_where_nothing_crashed(
    uncertain: int, is_graceful: bool, is_kept: bool
) -> None:
    evidence = Evidence([sent("a", 1)], [receipt("a", 1)] * 2, uncertain=uncertain)
    assert (broken(evidence, is_graceful=is_graceful) == []) is is_kept


def test_a_counter_of_uncertain_sends_that_excuses_anything_is_not_believed() -> None:
    evidence = Evidence([sent("a", 1)], [receipt("a", 1)] * 10, uncertain=9)
    assert broken(evidence, max_uncertain=8) == ["9 uncertain sends, at most 8 can be"]


def test_without_a_store_a_crash_may_repeat() -> None:
    assert broken(Evidence([sent("a", 1)], [receipt("a", 1)] * 2), bounds_duplicates=False) == []


def test_a_first_receipt_after_one_of_a_later_message_is_out_of_order() -> None:
    receipts = [receipt("a", 2), receipt("a", 1), receipt("a", 3)]
    evidence = Evidence([sent("a", 1), sent("a", 2), sent("a", 3)], receipts)
    assert examine(evidence, Promise()).late == (Delivery("a-1", "hook"),)
    assert broken(evidence) == ["1 first deliveries came out of order"]


def test_order_is_kept_per_recipient_and_channel_and_a_repetition_does_not_break_it() -> None:
    receipts = [receipt("a", 1), receipt("b", 2), receipt("b", 3), receipt("a", 2), receipt("a", 1)]
    assert find_late([*receipts, receipt("a", 1, channel="mail")]) == set()


def test_the_order_of_what_was_taken_counts_only_where_it_is_promised() -> None:
    receipts = [receipt("a", 1, is_taken=False), receipt("a", 2), receipt("a", 1)]
    evidence = Evidence([sent("a", 1), sent("a", 2)], receipts)
    assert examine(evidence, Promise(keeps_order_of_deliveries=True)).counts.out_of_order == 1
    assert examine(evidence, Promise(keeps_order_of_deliveries=False)).counts.out_of_order == 0


def test_a_dead_letter_that_is_delivered_after_all_is_late_unless_somebody_replayed_it() -> None:
    receipts = [receipt("a", 1, is_taken=False), receipt("a", 2), receipt("a", 1)]
    evidence = Evidence([sent("a", 1), sent("a", 2)], receipts, dead_letters={Delivery("a-1", "hook")})
    assert examine(evidence, Promise()).counts.out_of_order == 1
    assert examine(evidence, Promise(replays=True)).counts.out_of_order == 0


def test_a_message_that_nobody_sent_is_strange_unless_its_acceptance_is_in_doubt() -> None:
    evidence = Evidence([sent("a", 1)], [receipt("a", 1), receipt("a", 2)])
    assert broken(evidence) == ["1 deliveries that nobody sent"]
    assert broken(replace(evidence, doubtful={"a-2"})) == []


def test_a_scenario_that_sent_nothing_shows_nothing() -> None:
    assert broken(Evidence([], [])) == ["nothing was sent: the scenario shows nothing"]


def test_counts_add_up() -> None:
    assert Counts(1, 2, 3, 4, 5, 6) + Counts(1, 1, 1, 1, 1, 1) == Counts(2, 3, 4, 5, 6, 7)
