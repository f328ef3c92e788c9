"""What a sender is told when Kafka's client reports that a record was not acknowledged."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from tocsin_core.errors import KafkaUnavailable, NotAuthorized, OutcomeUnknown, RecordRejected, TopicMissing
from tocsin_core.producer import RecordProducer
from tocsin_core.settings import KafkaSettings


@pytest.fixture
def producer() -> RecordProducer:
    return RecordProducer(KafkaSettings(brokers=["one:9092"], topic="orders"), client_id="tests")


@pytest.mark.parametrize(
    "code",
    [
        *(KafkaError._TRANSPORT, KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError._PURGE_INFLIGHT),
        *(KafkaError._FATAL, KafkaError._BAD_MSG, KafkaError.REQUEST_TIMED_OUT),
        *(KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER),
        KafkaError.UNKNOWN_PRODUCER_ID,
    ],
)
def test_what_may_have_been_stored_is_said_to_be_unknown(producer: RecordProducer, code: int) -> None:
    assert isinstance(producer._explain(KafkaError(code)), OutcomeUnknown)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._PURGE_QUEUE, KafkaUnavailable),
        (KafkaError._TIMED_OUT_QUEUE, KafkaUnavailable),
        (KafkaError.NOT_ENOUGH_REPLICAS, KafkaUnavailable),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicMissing),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, NotAuthorized),
        (KafkaError.MSG_SIZE_TOO_LARGE, RecordRejected),
    ],
)
def test_what_was_certainly_not_stored_is_said_to_have_failed(
    producer: RecordProducer, code: int, kind: type[Exception]
) -> None:
    failure = producer._explain(KafkaError(code))
    assert isinstance(failure, kind)
    assert not isinstance(failure, OutcomeUnknown)


def test_a_deadline_that_passed_before_any_broker_was_reached_is_certain(producer: RecordProducer) -> None:
    producer._on_error(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    assert isinstance(producer._explain(KafkaError(KafkaError._MSG_TIMED_OUT)), KafkaUnavailable)
