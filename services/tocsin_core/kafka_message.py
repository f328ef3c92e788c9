"""Messages out of a `confluent_kafka.Consumer`, and what they hold: what everything that reads Kafka shares.

Whatever somebody else's producer has written becomes a record. Where the binding itself fails on it the record comes
without what could not be read, because one record must not end a process, nor every process that owns it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import cast

from confluent_kafka import Consumer, Message

from tocsin_core.message import Record

Headers = tuple[tuple[str, bytes | None], ...]

_call_headers = cast("Callable[[Message], list[tuple[str, bytes | None]] | None]", methodcaller("headers"))
"""Python does not check a call that it has made often for a result with an error beside it; the error would then come
up in whatever is called next, and the result crash the process. This way it always does."""


def consume(consumer: Consumer, most: int, *, wait_seconds: float) -> list[Message]:
    """Wait for one message and take along what else is there, at most `most` in all.

    A single `consume(n)` would wait for n of them.
    """
    messages = consumer.consume(1, wait_seconds)
    if messages and most > 1:
        messages += consumer.consume(most - 1, 0)
    return messages


def read_message(message: Message) -> Record:
    """Return what a Kafka message holds, untouched; without headers where one of their names is no UTF-8.

    Read a message once: the binding does not survive to be asked again for headers that it could not read (2.16).
    """
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=_read_headers(message),
    )


def _read_headers(message: Message) -> Headers:
    try:
        return tuple(_call_headers(message) or ())
    except (UnicodeDecodeError, SystemError):  # the binding returns what it has, and an error beside it
        return ()


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
