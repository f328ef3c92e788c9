"""What a Kafka message holds, also where the binding fails on it."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import Message

from tocsin_core.kafka_message import read_message
from tocsin_core.message import Record


class StubMessage:
    """A message whose headers are asked for once, or the process is gone."""

    def __init__(self, headers: list[tuple[str, bytes | None]] | BaseException | None) -> None:
        self._headers = [headers]

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        headers = self._headers.pop()
        if isinstance(headers, BaseException):
            raise headers
        return headers

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, 1000

    def key(self) -> bytes:
        return b"k"

    def value(self) -> None:
        return None


def read(headers: list[tuple[str, bytes | None]] | BaseException | None) -> Record:
    return read_message(cast("Message", StubMessage(headers)))


def test_a_message_is_read_as_it_is() -> None:
    assert read([("a", b"1"), ("a", None)]) == Record("t", 3, 7, 1000, b"k", None, (("a", b"1"), ("a", None)))
    assert read(None).headers == ()


@pytest.mark.parametrize(
    "error",
    [UnicodeDecodeError("utf-8", b"\xe4bad", 0, 1, "invalid"), SystemError("returned a result with an exception")],
)
def test_headers_that_the_binding_cannot_read_are_dropped_and_the_rest_is_there(error: Exception) -> None:
    assert read(error) == Record("t", 3, 7, 1000, b"k", None, ())
