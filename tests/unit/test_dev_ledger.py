"""The ledger counts every id once, and every receipt beyond the first."""

from __future__ import annotations

from tocsin_cli.dev.ledger import Count, End, Ledger


def test_an_id_is_open_until_every_channel_ended() -> None:
    ledger = Ledger(["log", "mail"])
    ledger.accept("a")
    ledger.receive("a", "log")
    assert ledger.open == 1
    ledger.receive("a", "mail")
    assert ledger.count() == Count(accepted=1, delivered=1, dead_lettered=0, dropped=0, open=0, duplicates=0)


def test_a_receipt_may_come_before_the_acceptance() -> None:
    ledger = Ledger(["log"])
    ledger.receive("a", "log")
    assert ledger.count().delivered == 0
    ledger.accept("a")
    assert ledger.count().delivered == 1


def test_receipts_before_the_acceptance_count_as_duplicates_too() -> None:
    ledger = Ledger(["log"])
    ledger.receive("a", "log")
    ledger.receive("a", "log")
    ledger.accept("a")
    assert ledger.count().duplicates == 1


def test_every_receipt_after_the_first_is_a_duplicate() -> None:
    ledger = Ledger(["log"])
    ledger.accept("a")
    for _ in range(3):
        ledger.receive("a", "log")
    assert ledger.count().duplicates == 2
    assert ledger.count().delivered == 1


def test_the_same_receipt_on_two_channels_is_no_duplicate() -> None:
    ledger = Ledger(["log", "mail"])
    ledger.accept("a")
    ledger.receive("a", "log")
    ledger.receive("a", "mail")
    assert ledger.count().duplicates == 0


def test_receipts_of_ids_nobody_accepted_here_count_nowhere() -> None:
    ledger = Ledger(["log"])
    ledger.receive("of an earlier run", "log")
    ledger.receive("of an earlier run", "log")
    assert ledger.count() == Count(accepted=0, delivered=0, dead_lettered=0, dropped=0, open=0, duplicates=0)


def test_only_the_channels_asked_for_are_awaited() -> None:
    ledger = Ledger(["log", "mail"])
    ledger.accept("a", ["mail"])
    ledger.receive("a", "mail")
    assert ledger.open == 0


def test_one_dead_letter_makes_the_id_dead_lettered() -> None:
    ledger = Ledger(["log", "mail"])
    ledger.accept("a")
    ledger.receive("a", "log")
    ledger.end("a", "mail", End.DEAD_LETTERED)
    assert (ledger.count().delivered, ledger.count().dead_lettered) == (0, 1)


def test_expired_and_suppressed_ids_are_dropped_and_not_open() -> None:
    ledger = Ledger(["log"])
    ledger.accept("a")
    ledger.accept("b")
    ledger.end("a", "log", End.EXPIRED)
    ledger.end("b", "log", End.SUPPRESSED)
    assert (ledger.count().dropped, ledger.open) == (2, 0)


def test_accepting_twice_changes_nothing() -> None:
    ledger = Ledger(["log"])
    ledger.accept("a")
    ledger.receive("a", "log")
    ledger.receive("a", "log")
    ledger.accept("a")
    assert (ledger.count().accepted, ledger.count().duplicates) == (1, 1)


def test_open_ids_come_in_the_order_of_acceptance() -> None:
    ledger = Ledger(["log"])
    for each in "cab":
        ledger.accept(each)
    ledger.receive("a", "log")
    assert list(ledger.open_ids()) == ["c", "b"]


def test_a_recount_believes_the_receiver_and_not_the_sender() -> None:
    ledger = Ledger(["hook"])
    for each in "abc":
        ledger.accept(each)
    ledger.receive("a", "hook")
    ledger.receive("b", "hook")
    ledger.end("c", "hook", End.DEAD_LETTERED)
    recount = ledger.recount({"a": 2}, "hook").count()
    assert recount == Count(accepted=3, delivered=1, dead_lettered=1, dropped=0, open=1, duplicates=1)


def test_what_waits_for_another_try_is_open_and_known_to_wait() -> None:
    ledger = Ledger(["hook", "mail"])
    ledger.accept("a")
    ledger.receive("a", "mail")
    assert ledger.count().waiting == 0
    ledger.defer("a", "hook")
    assert (ledger.open, ledger.count().waiting, ledger.has_deferred) == (1, 1, True)
    ledger.receive("a", "hook")
    assert (ledger.open, ledger.count().waiting, ledger.has_deferred) == (0, 0, False)


def test_what_also_lacks_an_end_elsewhere_is_not_known_to_wait() -> None:
    ledger = Ledger(["hook", "mail"])
    ledger.accept("a")
    ledger.defer("a", "hook")
    assert ledger.count().waiting == 0


def test_everything_of_a_paused_channel_waits_until_it_goes_on() -> None:
    ledger = Ledger(["hook"])
    ledger.accept("a")
    ledger.accept("b")
    ledger.pause("hook")
    assert ledger.count().waiting == 2
    ledger.resume("hook")
    assert ledger.count().waiting == 0


def test_a_deferral_is_a_move() -> None:
    ledger = Ledger(["hook"])
    ledger.accept("a")
    before = ledger.moves
    ledger.defer("a", "hook")
    ledger.defer("a", "hook")
    assert ledger.moves == before + 2


def test_a_recount_keeps_what_waits() -> None:
    ledger = Ledger(["hook"])
    ledger.accept("a")
    ledger.accept("b")
    ledger.defer("a", "hook")
    assert ledger.recount({}, "hook").count().waiting == 1
