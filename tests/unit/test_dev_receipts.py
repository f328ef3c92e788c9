"""Log lines become receipts: the Log channel's own line, or the engine's line for any other channel."""

from __future__ import annotations

import msgspec
import pytest

from tocsin_cli.dev.ledger import Ledger
from tocsin_cli.dev.receipts import ReceiptReader
from tocsin_consumer.gate import CLOSED, OPENED, THROTTLED


def line(**keys: object) -> bytes:
    return msgspec.json.encode({"level": "info", "notification_id": "a", **keys})


def reader(channel: str, *, is_log: bool) -> tuple[Ledger, ReceiptReader]:
    ledger = Ledger([channel])
    ledger.accept("a")
    return ledger, ReceiptReader(ledger, log_channels={channel} if is_log else ())


def test_the_log_channels_line_is_the_receipt_and_the_engines_line_is_no_second_one() -> None:
    ledger, receipts = reader("log", is_log=True)
    reading = receipts.read(line(event="notification", channel="log", to_id="2", message="hé"))
    receipts.read(line(event="notification delivered", channel="log"))
    assert reading.delivered is not None
    assert reading.delivered.message == "hé"
    assert (ledger.count().delivered, ledger.count().duplicates) == (1, 0)


def test_for_other_channels_the_engines_line_is_the_receipt() -> None:
    ledger, receipts = reader("hook", is_log=False)
    receipts.read(line(event="notification delivered", channel="hook"))
    receipts.read(line(event="notification delivered", channel="hook"))
    assert (ledger.count().delivered, ledger.count().duplicates) == (1, 1)


def test_a_dead_letter_ends_the_id_and_is_said_aloud() -> None:
    ledger, receipts = reader("hook", is_log=False)
    reading = receipts.read(line(event="notification dead-lettered", channel="hook", reason="provider_permanent"))
    assert ledger.count().dead_lettered == 1
    assert reading.remark == "notification dead-lettered a hook provider_permanent"


def test_an_expired_notification_is_dropped() -> None:
    ledger, receipts = reader("hook", is_log=False)
    receipts.read(line(event="notification expired", channel="hook"))
    assert ledger.count().dropped == 1


def test_warnings_are_said_aloud_and_other_lines_are_not() -> None:
    _, receipts = reader("log", is_log=True)
    assert receipts.read(b'{"event": "broker is away", "level": "warning"}').remark == "broker is away"
    assert receipts.read(b'{"event": "joined", "level": "info"}').remark == ""


def test_a_line_that_is_no_json_is_said_as_it_is() -> None:
    _, receipts = reader("log", is_log=True)
    assert receipts.read(b"Traceback (most recent call last):\n").remark == "Traceback (most recent call last):"


def test_a_deferral_waits_and_is_said_aloud() -> None:
    ledger, receipts = reader("hook", is_log=False)
    reading = receipts.read(line(event="notification deferred", channel="hook", reason="HTTP 503"))
    assert ledger.count().waiting == 1
    assert reading.remark == "notification deferred a hook HTTP 503"


@pytest.mark.parametrize("event", [OPENED, THROTTLED])
def test_a_channel_that_is_paused_waits_until_it_goes_on(event: str) -> None:
    ledger, receipts = reader("hook", is_log=False)
    receipts.read(line(event=event, level="warning", channel="hook", notification_id=None))
    assert ledger.count().waiting == 1
    receipts.read(line(event=CLOSED, channel="hook", notification_id=None))
    assert ledger.count().waiting == 0
