"""What is read of librdkafka's statistics, which tell much of every partition and come every two seconds."""

from __future__ import annotations

import msgspec


class _Broker(msgspec.Struct):
    state: str


class _Group(msgspec.Struct):
    state: str


class Statistics(msgspec.Struct):
    """What is read of a client's statistics: its brokers and its group.

    https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md
    """

    brokers: dict[str, _Broker]
    cgrp: _Group | None = None

    @property
    def is_connected(self) -> bool:
        """Return whether a broker is up."""
        return any(broker.state == "UP" for broker in self.brokers.values())

    @property
    def has_coordinator(self) -> bool:
        """Return whether the group's coordinator is known and connected."""
        return self.cgrp is not None and self.cgrp.state == "up"


_decoder = msgspec.json.Decoder(Statistics)


def read_statistics(text: str) -> Statistics:
    """Return what librdkafka's statistics say of brokers and group."""
    return _decoder.decode(text)
