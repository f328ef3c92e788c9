"""What other clients were told 202 for: the topic itself, read from where it ended when the session began.

`tocsin dev` invites people to post with curl, and their notifications count too. Ingestion's own counter was refused
as a source: it forgets on a restart, and a number has no ids that could be missed.
"""

from __future__ import annotations

import asyncio
from typing import Self

from tocsin_cli.dev.ledger import Ledger
from tocsin_core.admin import KafkaAdmin
from tocsin_core.codec import decode
from tocsin_core.errors import KafkaFailure, MessageError
from tocsin_core.message import Record
from tocsin_core.reader import TopicReader
from tocsin_core.settings import KafkaSettings

CLIENT_ID = "tocsin-dev-reader"
LOADING_SECONDS = 15.0
LOADING_LOOK_SECONDS = 0.2


class Acceptances:
    """Enters into the ledger what the topic holds."""

    def __init__(self, kafka: KafkaSettings, admin: KafkaAdmin, ledger: Ledger) -> None:
        self._kafka = kafka
        self._admin = admin
        self._ledger = ledger
        self._reader: TopicReader | None = None

    async def __aenter__(self) -> Self:
        self._reader = TopicReader(self._kafka, self._kafka.topic, await self._first_ends(), client_id=CLIENT_ID)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            await self._reader.close()

    async def catch_up(self) -> None:
        """Read to the end the topic has now. Raise KafkaFailure if the broker does not answer."""
        assert self._reader is not None, "use `async with`"  # noqa: S101 - a programming error
        for record in await self._reader.read_to(await self._ends()):
            self._enter(record)

    async def _first_ends(self) -> dict[int, int]:
        """Return the ends now. A broker that began a moment ago may still be loading its groups, so ask again."""
        deadline = asyncio.get_running_loop().time() + LOADING_SECONDS
        while True:
            try:
                return await self._ends()
            except KafkaFailure as error:
                if not error.retriable or asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(LOADING_LOOK_SECONDS)

    async def _ends(self) -> dict[int, int]:
        observed = await self._admin.observe_group(self._kafka.consumer_group, self._kafka.topic)
        return {each.partition: each.log_end for each in observed}

    def _enter(self, record: Record) -> None:
        try:
            notification = decode(record.value)
        except MessageError:
            return  # no API accepted it: whoever wrote it wrote past ingestion, and it ends in the dead-letter topic
        self._ledger.accept(notification.id, notification.channels)
