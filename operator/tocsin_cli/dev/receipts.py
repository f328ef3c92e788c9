"""What the consumers' JSON log lines say about notifications: receipts, dead letters, and the text for the screen.

For the Log channel the line *is* the delivery; for the others the engine's line after the provider's answer is the
nearest thing a sender can know. A receiver that counts for itself (the demo's) is believed over both.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from tocsin_cli.dev.ledger import End, Ledger

LOG_RECEIPT = "notification"
ENDS = {
    "notification delivered": End.DELIVERED,
    "notification dead-lettered": End.DEAD_LETTERED,
    "notification expired": End.EXPIRED,
    "notification suppressed": End.SUPPRESSED,
}
DEFERRED = "notification deferred"
PAUSED = ("a channel is paused: its provider fails", "a channel is paused: its provider asks for it")
RESUMED = "a channel goes on: its provider answers again"
LOUD_LEVELS = ("warning", "error", "critical")
LOUD_EVENTS = ("notification dead-lettered", DEFERRED, RESUMED)
LIBRDKAFKA = "tocsin.librdkafka"
OPEN_TO_EVERYBODY = (
    "everybody who reaches this port may post",
    "everybody who reaches this port may listen as any user",
)
"""Right in a cluster; here only this machine reaches the port."""


class LogLine(msgspec.Struct, frozen=True):
    """The keys of a log line that matter here; a line may have more."""

    event: str = ""
    level: str = ""
    logger: str = ""
    notification_id: str | None = None
    channel: str | None = None
    to_id: str | None = None
    title: str | None = None
    message: str | None = None
    reason: str | None = None
    error: str | None = None


class Reading(NamedTuple):
    """What one line meant: a notification that the Log channel delivered, or something the user should see."""

    delivered: LogLine | None = None
    remark: str = ""


class ReceiptReader:
    """Enters the lines of the consumers into the ledger."""

    def __init__(self, ledger: Ledger, *, log_channels: Collection[str]) -> None:
        self._ledger = ledger
        self._log_channels = log_channels
        self._decoder = msgspec.json.Decoder(LogLine)

    def read(self, line: bytes) -> Reading:
        """Enter one line into the ledger and return what it meant; a line that is no JSON is a remark."""
        try:
            entry = self._decoder.decode(line)
        except msgspec.DecodeError:
            return Reading(remark=line.decode(errors="replace").strip())
        if entry.notification_id and entry.channel:
            self._enter(entry, entry.notification_id, entry.channel)
        elif entry.channel:
            self._note_channel(entry.event, entry.channel)
        is_receipt = entry.event == LOG_RECEIPT and entry.channel in self._log_channels
        return Reading(entry if is_receipt else None, _remark(entry))

    def _enter(self, entry: LogLine, notification_id: str, channel: str) -> None:
        is_log = channel in self._log_channels
        end = ENDS.get(entry.event)
        if entry.event == LOG_RECEIPT and is_log:
            self._ledger.receive(notification_id, channel)
        elif end is End.DELIVERED:
            if not is_log:
                self._ledger.receive(notification_id, channel)
        elif end is not None:
            self._ledger.end(notification_id, channel, end)
        elif entry.event == DEFERRED:
            self._ledger.defer(notification_id, channel)

    def _note_channel(self, event: str, channel: str) -> None:
        if event in PAUSED:
            self._ledger.pause(channel)
        elif event == RESUMED:
            self._ledger.resume(channel)


def _remark(entry: LogLine) -> str:
    is_loud = entry.level in LOUD_LEVELS or entry.event in LOUD_EVENTS
    # librdkafka warns of what it repeats by itself, which a broker that began a second ago always makes it do.
    is_passing = entry.logger == LIBRDKAFKA and entry.event.endswith("retrying")
    if not is_loud or is_passing or entry.event in OPEN_TO_EVERYBODY:
        return ""
    details = (entry.notification_id, entry.channel, entry.reason, entry.error)
    return " ".join([entry.event, *(detail for detail in details if detail)])
