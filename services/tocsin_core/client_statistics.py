"""What is read of librdkafka's statistics, which tell much of every partition, and what only they show.

A client drops the brokers that are missing in the cluster's answer. A broker that was just taken back, or has no
controller yet, may name none at all: then all are dropped, and if they were down at that moment the client does not go
back to its bootstrap servers (2.16 and before, https://github.com/confluentinc/librdkafka/issues/5301). It raises no
error, asks nobody any more and never recovers; nothing but a new client helps.
"""

from __future__ import annotations

import msgspec

LOST_SECONDS = 10.0
"""How long a client may know no broker. It goes back to its bootstrap servers at once, or never."""


class _Broker(msgspec.Struct):
    state: str
    source: str = ""


class Statistics(msgspec.Struct):
    """What is read of a client's statistics: its brokers.

    https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md
    """

    brokers: dict[str, _Broker]

    @property
    def is_connected(self) -> bool:
        """Return whether a broker is up."""
        return any(broker.state == "UP" for broker in self.brokers.values())

    @property
    def knows_brokers(self) -> bool:
        """Return whether there is a broker to ask: a group's coordinator is only a second connection to one."""
        return any(broker.source in ("configured", "learned") for broker in self.brokers.values())


_decoder = msgspec.json.Decoder(Statistics)


def read_statistics(text: str) -> Statistics:
    """Return what librdkafka's statistics say of the brokers."""
    return _decoder.decode(text)


class LostWatch:
    """How long a client has known no broker. `now` is in seconds of any steady clock."""

    def __init__(self) -> None:
        self._since: float | None = None

    def note(self, statistics: Statistics, now: float) -> None:
        """Take note of the statistics at this moment."""
        if statistics.knows_brokers:
            self._since = None
        elif self._since is None:
            self._since = now

    def is_lost(self, now: float) -> bool:
        """Return whether the client has known no broker for longer than it takes to go back to those it began with."""
        return self._since is not None and now - self._since >= LOST_SECONDS

    def begin_again(self) -> None:
        """Forget what an earlier client met."""
        self._since = None
