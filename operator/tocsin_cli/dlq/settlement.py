"""Which dead letters are done with: markers in the topic itself. Pure.

A marker has the letter's key, an empty value and the headers `dlq-settled` (replayed or discarded), `dlq-settles`
(PARTITION:OFFSET) and `dlq-settled-at`. It is a record like any other, so it is as durable, as readable and as
short-lived as the letter it speaks of. The value is empty and not null: in a compacted topic null would delete.
"""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from tocsin_cli.dlq.letter import ORIGINAL_TOPIC, Position
from tocsin_core.message import Record

SETTLED = "dlq-settled"
SETTLES = "dlq-settles"
SETTLED_AT = "dlq-settled-at"
POSITION = re.compile(r"^([0-9]{1,9}):([0-9]{1,18})$")


class Settlement(StrEnum):
    """How a dead letter was done with."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"


class Marker(NamedTuple):
    """What one marker record says."""

    settlement: Settlement
    position: Position


class Settled:
    """The settled positions of a topic, one bit per offset, so that millions of markers fit into memory."""

    def __init__(self, starts: dict[int, int]) -> None:
        """Prepare for partitions whose logs start at these offsets; what is below is gone, and is not kept."""
        self._starts = starts
        self._bits: defaultdict[tuple[Settlement, int], bytearray] = defaultdict(bytearray)

    def add(self, marker: Marker, *, end: int) -> None:
        """Note a marker about an offset below `end`; one about anything else means nothing."""
        partition, offset = marker.position
        index = offset - self._starts.get(partition, end)
        if index < 0 or offset >= end:
            return
        bits = self._bits[marker.settlement, partition]
        bits.extend(bytes(max(0, index // 8 + 1 - len(bits))))
        bits[index // 8] |= 1 << index % 8

    def find(self, position: Position) -> Settlement | None:
        """Return how the letter at a position was done with, or None if it was not."""
        index = position.offset - self._starts.get(position.partition, 0)
        for settlement in Settlement:
            bits = self._bits.get((settlement, position.partition), b"")
            if 0 <= index // 8 < len(bits) and bits[index // 8] >> index % 8 & 1:
                return settlement
        return None


def build_marker(position: Position, settlement: Settlement, *, now: datetime) -> list[tuple[str, bytes | None]]:
    """Return the headers of the marker that settles a position."""
    texts = {SETTLED: settlement.value, SETTLES: str(position), SETTLED_AT: now.isoformat()}
    return [(name, text.encode()) for name, text in texts.items()]


def read_marker(record: Record) -> Marker | None:
    """Return what a marker says, or None for any other record.

    A dead letter keeps its sender's headers, so a record that names an original topic is never a marker: else anybody
    who may write to the main topic could hide other people's dead letters.
    """
    settled, settles = record.header(SETTLED), record.header(SETTLES)
    if settled is None or settles is None or record.value or record.header(ORIGINAL_TOPIC) is not None:
        return None
    found = POSITION.match(settles.decode("ascii", "replace"))
    text = settled.decode("ascii", "replace")
    if found is None or text not in list(Settlement):
        return None
    return Marker(Settlement(text), Position(int(found[1]), int(found[2])))
