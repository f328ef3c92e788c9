"""Dead letters that their topic does not take whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from tocsin_consumer.dead_letters import Burial, DeadLetters
from tocsin_consumer.producer import DELIVERY_TIMEOUT_SECONDS, build_producer_settings
from tocsin_core.assignment import size_bytes
from tocsin_core.connection import Code, translate
from tocsin_core.errors import RecordRejected
from tocsin_core.message import Record
from tocsin_core.settings import KafkaSettings

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ORIGIN = Record("orders", 3, 7, 1_700_000_000_000, b"2", b"value", (("a", b"1"),))


class Topic:
    """Takes records up to a size."""

    def __init__(self, *, max_bytes: int = 4_000, code: int = Code.MESSAGE_TOO_LARGE) -> None:
        self._max_bytes = max_bytes
        self._code = code
        self.records: list[Record] = []

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        *,
        partition: int | None = None,
    ) -> None:
        record = Record(topic, partition or 0, len(self.records), 0, key, value, tuple(headers))
        if size_bytes(record) > self._max_bytes:
            raise translate(self._code, "no")
        self.records.append(record)

    async def count_partitions(self, topic: str) -> int:
        raise NotImplementedError(topic)


async def bury(topic: Topic, record: Record, *, channel: str = "hook") -> Record:
    burial = Burial("undecodable", "MessageError", "no JSON", channel, 1, NOW, NOW)
    await DeadLetters(topic, topic="orders.dlq", group="g").bury(record, burial)
    [letter] = topic.records
    return letter


async def test_a_letter_that_fits_is_whole() -> None:
    letter = await bury(Topic(), ORIGIN)
    assert (letter.key, letter.value, letter.headers[:1]) == (b"2", b"value", ORIGIN.headers)
    assert letter.header("dlq-value-omitted") is None


@pytest.mark.parametrize("code", [Code.MESSAGE_TOO_LARGE, Code.RECORD_LIST_TOO_LARGE])
async def test_a_value_that_the_topic_does_not_take_is_left_out_and_the_letter_says_so(code: Code) -> None:
    letter = await bury(Topic(code=code), ORIGIN._replace(value=b"x" * 5_000))
    assert (letter.key, letter.value, letter.headers[:1]) == (b"2", b"", ORIGIN.headers)
    assert letter.header("dlq-value-omitted") == b"5000"
    assert (letter.header("dlq-original-partition"), letter.header("dlq-original-offset")) == (b"3", b"7")


@pytest.mark.parametrize(
    "record",
    [
        ORIGIN._replace(key=b"k" * 5_000),
        ORIGIN._replace(headers=(("a", b"x" * 5_000),)),
        ORIGIN._replace(headers=(("dlq-replay-count", b"1" * 5_000),)),
    ],
)
async def test_where_key_or_headers_are_too_large_what_is_left_is_why_it_died_and_where_it_stood(
    record: Record,
) -> None:
    letter = await bury(Topic(), record)
    assert (letter.key, letter.value, letter.header("a")) == (None, b"", None)
    assert letter.header("dlq-value-omitted") == b"5"
    assert letter.header("dlq-original-offset") == b"7"


async def test_a_channel_of_any_length_makes_no_letter_that_is_too_large() -> None:
    letter = await bury(Topic(), ORIGIN, channel="c" * 100_000)
    assert letter.header("dlq-channel") == b"c" * 1024


async def test_another_refusal_leaves_nothing_out() -> None:
    topic = Topic(max_bytes=0, code=Code.INVALID_RECORD)
    with pytest.raises(RecordRejected):
        await bury(topic, ORIGIN)
    assert topic.records == []


def test_a_consumers_producer_may_write_what_was_read_and_takes_its_time() -> None:
    kafka = KafkaSettings(brokers=["b:1"], topic="t", producer_return_successes=False)
    own = build_producer_settings(kafka)
    assert own.message_max_bytes == 32 * 1024 * 1024
    assert own.batch_max_bytes <= 65_536
    assert (own.producer_return_successes, own.delivery_timeout_seconds) == (True, DELIVERY_TIMEOUT_SECONDS)


def test_a_record_that_the_queue_cannot_hold_is_refused_for_good_and_not_for_the_moment() -> None:
    kafka = KafkaSettings(brokers=["b:1"], topic="t", message_max_bytes=10**9, queue_max_kbytes=100)
    assert build_producer_settings(kafka).message_max_bytes == 100 * 1024
