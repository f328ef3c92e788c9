"""Raw bytes on the socket, and what they left in a real topic."""

from __future__ import annotations

import re

import pytest

from http_fuzz import choose_cases
from ingestion_api import ONE, run_api
from raw_http import converse
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_core.codec import decode
from tocsin_core.producer import RecordProducer
from tocsin_core.reader import TopicReader
from tocsin_core.settings import KafkaConnection, KafkaSettings

pytestmark = pytest.mark.kafka
ID = re.compile(rb'"id":"([0-9a-f-]{36})"')


@pytest.mark.timeout(3_600)
async def test_whatever_bytes_arrive_the_topic_holds_all_that_was_answered_202_and_nothing_undecodable(
    kafka: EmbeddedKafka, topic: str, pytestconfig: pytest.Config
) -> None:
    brokers = [kafka.bootstrap_servers]
    reader = TopicReader(KafkaConnection(brokers=brokers), topic, client_id="tests")
    await reader.begin()
    producer = RecordProducer(KafkaSettings(brokers=brokers, topic=topic), client_id="tests")
    await producer.start()
    answered: set[str] = set()
    async with run_api(sink=producer, topic=topic) as api:
        for case in choose_cases(pytestconfig.getoption("--fuzz-seconds")):
            heard = await converse(api.port, case.parts, quiet_seconds=0.3)
            answered |= {found.decode() for found in ID.findall(heard.data)}
        assert (await api.client.post(ONE, json={})).status_code == 422
    assert await producer.close(10) == 0
    stored = [decode(record.value) for record in await reader.read_new()]
    await reader.close()
    assert answered
    assert answered <= {notification.id for notification in stored}
    assert {notification.to_id for notification in stored} <= {"1", "2", "3"}
