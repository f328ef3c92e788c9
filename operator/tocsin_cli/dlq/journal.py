"""The dead-letter topic as it was when the command began, read piece by piece and never beyond.

A topic of millions is read twice and held never: once for the markers (a bit each), once for the letters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Self

from tocsin_cli.dlq.choice import Choice
from tocsin_cli.dlq.letter import Letter, Position, read_letter
from tocsin_cli.dlq.place import CLIENT_ID, Place
from tocsin_cli.dlq.settlement import Settled, read_marker
from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import KafkaFailure
from tocsin_core.lag import PartitionOffsets
from tocsin_core.message import Record
from tocsin_core.reader import RangeReader

BATCH_RECORDS = 200
"""How many records are held at a time; fewer where they are large (`tocsin_core.reader.STRETCH_BYTES`)."""


class Journal:
    """The records of one dead-letter topic between two moments: the log's start and the command's own."""

    def __init__(self, place: Place) -> None:
        self.topic = place.dead_letter_topic
        self._place = place
        self._reader: RangeReader | None = None
        self.extents: dict[int, PartitionOffsets] = {}

    async def __aenter__(self) -> Self:
        """Connect and note where the topic ends. Raise TopicMissing or another KafkaFailure."""
        admin = KafkaAdmin(self._place.kafka, client_id=CLIENT_ID)
        try:
            observed = await admin.observe_topic(self.topic)
        except KafkaFailure as failure:
            raise type(failure)(f"{self.topic}: {failure}", advice=failure.advice, code=failure.code) from failure
        finally:
            await admin.close()
        self.extents = {each.partition: each for each in observed}
        self._reader = RangeReader(self._place.kafka, client_id=CLIENT_ID)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            await self._reader.close()

    async def find_settled(self) -> Settled:
        """Return which positions are done with, from the markers of the whole topic. Raise KafkaFailure."""
        settled = Settled({number: extent.log_start for number, extent in self.extents.items()})
        async for record in self._read_all():
            marker = read_marker(record)
            extent = self.extents.get(marker.position.partition) if marker else None
            if marker is not None and extent is not None:
                settled.add(marker, end=extent.log_end)
        return settled

    async def choose(self, choice: Choice) -> AsyncIterator[Letter]:
        """Yield the chosen letters, partition by partition in the order of their offsets. Raise KafkaFailure."""
        records = self._pick(choice.positions) if choice.positions else self._read_all()
        async for record in records:
            if read_marker(record) is None and choice.matches(letter := read_letter(record)):
                yield letter

    async def find(self, position: Position) -> Letter | None:
        """Return the letter at a position, or None where there is none. Raise KafkaFailure."""
        async for letter in self.choose(Choice(positions=(position,))):
            return letter
        return None

    async def read_beyond(self, positions: dict[int, int]) -> AsyncIterator[Record]:
        """Yield what has come since `positions` (one offset per partition), and move them. Raise KafkaFailure."""
        for partition, start in list(positions.items()):
            offset = start
            while True:
                stretch = await self._open.read(self.topic, partition, offset, max_records=BATCH_RECORDS)
                positions[partition] = offset = stretch.next_offset
                for record in stretch.records:
                    yield record
                if not stretch.records:
                    break

    async def _read_all(self) -> AsyncIterator[Record]:
        for partition, extent in sorted(self.extents.items()):
            async for record in self._read_partition(partition, extent.log_start, extent.log_end):
                yield record

    async def _read_partition(self, partition: int, start: int, end: int) -> AsyncIterator[Record]:
        while start < end:
            stretch = await self._open.read(self.topic, partition, start, max_records=BATCH_RECORDS)
            if stretch.next_offset == start:
                return  # what is left belongs to a transaction that is still open
            start = stretch.next_offset
            for record in stretch.records:
                if record.offset < end:
                    yield record

    async def _pick(self, positions: Sequence[Position]) -> AsyncIterator[Record]:
        for partition, offset in positions:
            extent = self.extents.get(partition)
            if extent is None or not extent.log_start <= offset < extent.log_end:
                continue
            stretch = await self._open.read(self.topic, partition, offset, max_records=1)
            for record in stretch.records:
                if record.offset == offset:
                    yield record

    @property
    def _open(self) -> RangeReader:
        if self._reader is None:
            raise RuntimeError("the journal is not open")
        return self._reader
