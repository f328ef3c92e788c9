"""What other clients were told 202 for: the topic itself, read from where it ended when the session began.

`tocsin dev` invites people to post with curl, and their notifications count too. Ingestion's own counter was refused
as a source: it forgets on a restart, and a number has no ids that could be missed.
"""

from __future__ import annotations

from typing import Self

from tocsin_cli.dev.ledger import Ledger
from tocsin_core.codec import decode
from tocsin_core.errors import MessageError
from tocsin_core.message import Record
from tocsin_core.reader import TopicReader
from tocsin_core.settings import KafkaSettings

CLIENT_ID = "tocsin-dev-reader"


class Acceptances:
    """Enters into the ledger what the topic holds."""

    def __init__(self, kafka: KafkaSettings, ledger: Ledger) -> None:
        self._reader = TopicReader(kafka, kafka.topic, client_id=CLIENT_ID)
        self._ledger = ledger

    async def __aenter__(self) -> Self:
        await self._reader.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.close()

    async def catch_up(self) -> None:
        """Read to the end the topic has now. Raise KafkaFailure if the broker does not answer."""
        for record in await self._reader.read_new():
            self._enter(record)

    def _enter(self, record: Record) -> None:
        try:
            notification = decode(record.value)
        except MessageError:
            return  # no API accepted it: whoever wrote it wrote past ingestion, and it ends in the dead-letter topic
        self._ledger.accept(notification.id, notification.channels)
