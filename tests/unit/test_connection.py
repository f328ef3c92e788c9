from __future__ import annotations

from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from pydantic import SecretStr

from tocsin_core.connection import (
    Code,
    build_client_config,
    check_files,
    choose_cause,
    translate,
    translate_error,
    translate_exception,
)
from tocsin_core.errors import (
    KafkaFailure,
    KafkaUnavailable,
    NotAuthenticated,
    NotAuthorized,
    OutcomeUnknown,
    QueueFull,
    RecordRejected,
    SettingsError,
    TopicMissing,
)
from tocsin_core.producer_config import build_producer_config
from tocsin_core.settings import KafkaConnection, KafkaSettings, TLSSettings

NAMES_IN_LIBRDKAFKA = {
    "MESSAGE_TIMED_OUT": "_MSG_TIMED_OUT",
    "INVALID_ARGUMENT": "_INVALID_ARG",
    "LOCAL_QUEUE_FULL": "_QUEUE_FULL",
    "TIMED_OUT_IN_QUEUE": "_TIMED_OUT_QUEUE",
    "PURGED_IN_QUEUE": "_PURGE_QUEUE",
    "PURGED_IN_FLIGHT": "_PURGE_INFLIGHT",
    "UNKNOWN_TOPIC_OR_PARTITION": "UNKNOWN_TOPIC_OR_PART",
    "NOT_LEADER": "NOT_LEADER_FOR_PARTITION",
    "MESSAGE_TOO_LARGE": "MSG_SIZE_TOO_LARGE",
    "NETWORK": "NETWORK_EXCEPTION",
    "COORDINATOR_LOADING": "COORDINATOR_LOAD_IN_PROGRESS",
    "INVALID_TOPIC": "TOPIC_EXCEPTION",
    "RECORD_LIST_TOO_LARGE": "RECORD_LIST_TOO_LARGE",
    "TOPIC_AUTHORIZATION": "TOPIC_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION": "GROUP_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION": "CLUSTER_AUTHORIZATION_FAILED",
    "TRANSACTIONAL_ID_AUTHORIZATION": "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
}


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_every_code_is_librdkafkas_own_number(code: Code) -> None:
    default = f"_{code.name}" if code < 0 else code.name
    assert getattr(confluent_kafka.KafkaError, NAMES_IN_LIBRDKAFKA.get(code.name, default)) == code


@pytest.mark.parametrize(
    ("code", "failure", "is_retriable"),
    [
        (Code.ALL_BROKERS_DOWN, KafkaUnavailable, True),
        (Code.MESSAGE_TIMED_OUT, OutcomeUnknown, True),
        (Code.LOCAL_QUEUE_FULL, QueueFull, True),
        (Code.SASL_AUTHENTICATION_FAILED, NotAuthenticated, False),
        (Code.TOPIC_AUTHORIZATION, NotAuthorized, False),
        (Code.UNKNOWN_TOPIC_OR_PARTITION, TopicMissing, False),
        (Code.MESSAGE_TOO_LARGE, RecordRejected, False),
    ],
)
def test_a_code_becomes_the_error_that_says_whether_repeating_helps(
    code: int, failure: type[KafkaFailure], is_retriable: bool
) -> None:
    translated = translate(code, "as the broker put it")
    assert type(translated) is failure
    assert translated.retriable is is_retriable
    assert str(translated) == "as the broker put it"
    assert translated.advice
    assert translated.code == code


def test_an_unknown_code_is_a_plain_failure_with_its_number() -> None:
    translated = translate(12345, "")
    assert (type(translated), str(translated)) == (KafkaFailure, "Kafka error 12345")


def test_kafkas_own_name_is_part_of_the_text() -> None:
    error = confluent_kafka.KafkaError(int(Code.TOPIC_AUTHORIZATION))
    assert str(translate_error(error)) == "Broker: Topic authorization failed (TOPIC_AUTHORIZATION_FAILED)"
    assert isinstance(translate_exception(confluent_kafka.KafkaException(error)), NotAuthorized)
    assert str(translate_exception(confluent_kafka.KafkaException("odd"))) == "odd"


def test_that_all_brokers_are_down_does_not_hide_why() -> None:
    wrong_password = translate(Code.AUTHENTICATION, "no")
    down = translate(Code.ALL_BROKERS_DOWN, "1/1 brokers are down")
    assert choose_cause(wrong_password, down) is wrong_password
    assert choose_cause(down, wrong_password) is wrong_password
    assert choose_cause(None, down) is down


def test_a_plain_connection_carries_no_credentials() -> None:
    config = build_client_config(KafkaConnection(brokers=["a:1", "b:2"], username="left", password=SecretStr("over")))
    assert config["bootstrap.servers"] == "a:1,b:2"
    assert not [key for key in config if key.startswith(("sasl", "ssl"))]


def test_sasl_over_tls_carries_user_mechanism_and_files() -> None:
    connection = KafkaConnection.model_validate(
        {
            "brokers": ["a:1"],
            "security_protocol": "SASL_SSL",
            "username": "ada",
            "password": "pw",
            "tls": {"ca_file": "/tls/ca.crt", "cert_pem": "CERT", "key_pem": "KEY"},
        }
    )
    config = build_client_config(connection)
    chosen = {key: value for key, value in config.items() if key.startswith(("sasl", "ssl", "security"))}
    assert chosen == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "ada",
        "sasl.password": "pw",
        "ssl.ca.location": "/tls/ca.crt",
        "ssl.certificate.pem": "CERT",
        "ssl.key.pem": "KEY",
    }


def test_an_unreadable_file_is_named_with_its_key(tmp_path: Path) -> None:
    check_files(TLSSettings())
    with pytest.raises(SettingsError, match=r"kafka\.tls\.key_file: .*tls\.key: No such file or directory"):
        check_files(TLSSettings(key_file=tmp_path / "tls.key"))


@pytest.mark.parametrize(
    "changes", [{}, {"retries": 0}, {"delivery_timeout_seconds": 0.01}, {"delivery_timeout_seconds": 300}]
)
def test_librdkafka_accepts_what_is_built_for_a_producer(changes: dict[str, Any]) -> None:
    settings = KafkaSettings.model_validate({"brokers": ["127.0.0.1:1"], "topic": "t", **changes})
    config = build_producer_config(settings, client_id="tests")
    assert (config["acks"], config["partitioner"]) == ("all", "murmur2_random")
    assert config["enable.idempotence"] is (settings.retries > 0)
    confluent_kafka.Producer({**config, "log_level": 0})
