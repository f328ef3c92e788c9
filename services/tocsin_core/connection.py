"""What every Kafka client of ours shares: how it connects, and what an error code means.

Without confluent_kafka: the codes are Kafka's own numbers (positive) and librdkafka's (negative), so that
one table serves producer, consumer and admin, and a caller never has to know either.
Source of the numbers: Kafka protocol guide, "Error Codes"; librdkafka, rdkafka.h, `rd_kafka_resp_err_t`.
"""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

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
from tocsin_core.settings import KafkaConnection, TLSSettings


class Code(IntEnum):
    """The error codes that mean something to us."""

    TRANSPORT = -195
    RESOLVE = -193
    MESSAGE_TIMED_OUT = -192
    UNKNOWN_PARTITION = -190
    UNKNOWN_TOPIC = -188
    ALL_BROKERS_DOWN = -187
    INVALID_ARGUMENT = -186
    TIMED_OUT = -185
    LOCAL_QUEUE_FULL = -184
    SSL = -181
    AUTHENTICATION = -169
    TIMED_OUT_IN_QUEUE = -166
    PURGED_IN_QUEUE = -152
    PURGED_IN_FLIGHT = -151
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER = 6
    REQUEST_TIMED_OUT = 7
    MESSAGE_TOO_LARGE = 10
    NETWORK = 13
    COORDINATOR_LOADING = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    INVALID_TOPIC = 17
    RECORD_LIST_TOO_LARGE = 18
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    TOPIC_AUTHORIZATION = 29
    GROUP_AUTHORIZATION = 30
    CLUSTER_AUTHORIZATION = 31
    UNSUPPORTED_SASL_MECHANISM = 33
    ILLEGAL_SASL_STATE = 34
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_CONFIG = 40
    POLICY_VIOLATION = 44
    TRANSACTIONAL_ID_AUTHORIZATION = 53
    SASL_AUTHENTICATION_FAILED = 58
    GROUP_ID_NOT_FOUND = 69
    INVALID_RECORD = 87


_UNREACHABLE = "check kafka.brokers, that the brokers run, and that the network lets this pod reach them"
_WHO_ARE_WE = "check username, password, sasl_mechanism and security_protocol against the listener of the broker"
_CERTIFICATES = (
    "check tls.ca_file against the broker's certificate, that the broker's name is in it, "
    "and that security_protocol is the listener's"
)
_NO_REPLICAS = "too few in-sync replicas for acks=all: bring the missing brokers back, or check min.insync.replicas"

_MEANINGS: dict[type[KafkaFailure], dict[int, str]] = {
    KafkaUnavailable: {
        Code.TRANSPORT: _UNREACHABLE,
        Code.RESOLVE: "check the host names in kafka.brokers: they do not resolve",
        Code.ALL_BROKERS_DOWN: _UNREACHABLE,
        Code.TIMED_OUT: _UNREACHABLE,
        Code.TIMED_OUT_IN_QUEUE: _UNREACHABLE,
        Code.PURGED_IN_QUEUE: "the process is stopping; send it again",
        Code.LEADER_NOT_AVAILABLE: "a leader is being elected; it passes",
        Code.NOT_LEADER: "a leader is being elected; it passes",
        Code.NETWORK: _UNREACHABLE,
        Code.COORDINATOR_LOADING: "the group's coordinator is starting; it passes",
        Code.COORDINATOR_NOT_AVAILABLE: "the group's coordinator is being elected; it passes",
        Code.NOT_COORDINATOR: "the group's coordinator is being elected; it passes",
        Code.NOT_ENOUGH_REPLICAS: _NO_REPLICAS,
    },
    OutcomeUnknown: {
        Code.MESSAGE_TIMED_OUT: "the broker was slow or gone; sending again under the same id is safe",
        Code.PURGED_IN_FLIGHT: "the process stopped before the broker answered; send again under the same id",
        Code.REQUEST_TIMED_OUT: "the broker was slow to replicate; sending again under the same id is safe",
        Code.NOT_ENOUGH_REPLICAS_AFTER_APPEND: _NO_REPLICAS,
    },
    QueueFull: {Code.LOCAL_QUEUE_FULL: "Kafka is slower than what comes in: retry later, or add ingestion replicas"},
    NotAuthenticated: {
        Code.SSL: _CERTIFICATES,
        Code.AUTHENTICATION: _WHO_ARE_WE,
        Code.UNSUPPORTED_SASL_MECHANISM: "the listener does not offer this sasl_mechanism; name one it does",
        Code.ILLEGAL_SASL_STATE: _WHO_ARE_WE,
        Code.SASL_AUTHENTICATION_FAILED: _WHO_ARE_WE,
    },
    NotAuthorized: {
        Code.TOPIC_AUTHORIZATION: "grant this user Describe, Read and Write on the topic (kafka-acls --add --topic)",
        Code.GROUP_AUTHORIZATION: "grant this user Read and Describe on the consumer group (kafka-acls --add --group)",
        Code.CLUSTER_AUTHORIZATION: "grant this user Create and Describe on the cluster, or make the topic External",
        Code.TRANSACTIONAL_ID_AUTHORIZATION: "grant this user Write and Describe on the transactional id",
    },
    TopicMissing: {
        Code.UNKNOWN_TOPIC: "create the topic, or let the operator manage it (spec.kafka.topic.management: Managed)",
        Code.UNKNOWN_TOPIC_OR_PARTITION: "create the topic, or let the operator manage it "
        "(spec.kafka.topic.management: Managed); where ACLs are on, an unreadable topic looks missing, too",
    },
    RecordRejected: {
        Code.MESSAGE_TOO_LARGE: "the record is larger than message.max.bytes of the topic or of this client",
        Code.RECORD_LIST_TOO_LARGE: "the record is larger than the topic's segment.bytes",
        Code.INVALID_RECORD: "the topic's configuration refuses this record (a compacted topic needs keys)",
    },
    KafkaFailure: {
        Code.INVALID_ARGUMENT: "a setting of the connection cannot be used: check sasl_mechanism, and that tls.* holds "
        "PEM certificates and a key that belong together",
        Code.INVALID_TOPIC: "the topic's name is not one Kafka accepts: letters, digits, '.', '_' and '-', at most 249",
        Code.INVALID_PARTITIONS: "partitions can only grow",
        Code.INVALID_REPLICATION_FACTOR: "replicationFactor is larger than the number of brokers",
        Code.INVALID_CONFIG: "a key or value in the topic's config is not one this broker knows",
        Code.POLICY_VIOLATION: "a policy of this cluster refuses it; its text says why",
    },
}
# librdkafka's texts say how long a broker was in a state: another number each time, and a status never at rest.
_HOW_LONG = re.compile(r" \(after \d+ms in state [^)]*\)")
COORDINATOR_PASSES = frozenset({Code.COORDINATOR_LOADING, Code.COORDINATOR_NOT_AVAILABLE, Code.NOT_COORDINATOR})
"""A group's coordinator is moving or starting: asking again helps within seconds."""

_BY_CODE = {code: (failure, advice) for failure, codes in _MEANINGS.items() for code, advice in codes.items()}


class KafkaErrorLike(Protocol):
    """What confluent_kafka's KafkaError says of itself."""

    def code(self) -> int:
        """Return the number."""
        ...

    def name(self) -> str:
        """Return the symbolic name."""
        ...

    def str(self) -> str:
        """Return the sentence."""
        ...


def translate(code: int, text: str) -> KafkaFailure:
    """Return our error for a Kafka or librdkafka error code, with advice; an unknown code is a plain KafkaFailure."""
    failure, advice = _BY_CODE.get(code, (KafkaFailure, ""))
    return failure(text or f"Kafka error {code}", advice=advice, code=code)


def translate_error(error: KafkaErrorLike) -> KafkaFailure:
    """Return our error for a KafkaError; its text has Kafka's name for it, because that is what people search for."""
    return translate(error.code(), f"{error.str().rstrip(': ')} ({error.name()})")


def translate_exception(error: Exception) -> KafkaFailure:
    """Return our error for a KafkaException, which carries a KafkaError."""
    cause: Any = error.args[0] if error.args else None
    return translate_error(cause) if hasattr(cause, "code") else KafkaFailure(str(error))


def choose_cause(known: KafkaFailure | None, news: KafkaFailure) -> KafkaFailure:
    """Return which of two connection failures says more: "all brokers down" only sums up what was said before."""
    return known if known is not None and news.code == Code.ALL_BROKERS_DOWN else news


def check_files(tls: TLSSettings) -> None:
    """Raise SettingsError naming the key and the file that cannot be read; librdkafka's own words name neither."""
    cert_file, key_file = _find_client_certificate(tls)
    for key, path in (("ca_file", tls.ca_file), ("cert_file", cert_file), ("key_file", key_file)):
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            raise SettingsError(f"kafka.tls.{key}: {path}: {error.strerror}; is the Secret mounted?") from error


def build_client_config(connection: KafkaConnection) -> dict[str, Any]:
    """Return the librdkafka properties that reach and convince the brokers of `connection`. They hold secrets."""
    config: dict[str, Any] = {
        "bootstrap.servers": ",".join(connection.brokers),
        "security.protocol": connection.security_protocol,
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2_000,  # a broker that is back is found within seconds, not ten
        "log.connection.close": False,  # brokers close idle connections; that is not news
    }
    if connection.security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = connection.sasl_mechanism
        config["sasl.username"] = connection.username
        config["sasl.password"] = connection.password.get_secret_value()
    if connection.security_protocol.endswith("SSL"):
        config.update(_build_tls_config(connection.tls))
    return config


def _build_tls_config(tls: TLSSettings) -> dict[str, str]:
    cert_file, key_file = _find_client_certificate(tls)
    chosen = {
        "ssl.ca.location": str(tls.ca_file) if tls.ca_file else None,
        "ssl.certificate.location": str(cert_file) if cert_file else None,
        "ssl.key.location": str(key_file) if key_file else None,
        "ssl.ca.pem": tls.ca_pem,
        "ssl.certificate.pem": tls.cert_pem,
        "ssl.key.pem": tls.key_pem.get_secret_value() if tls.key_pem else None,
    }
    return {key: value for key, value in chosen.items() if value}


def _find_client_certificate(tls: TLSSettings) -> tuple[Path | None, Path | None]:
    """Return the files of the client's certificate and key; a Secret that holds a CA alone has neither, by right."""
    pair = (tls.cert_file, tls.key_file)
    is_absent = all(path is not None and not path.exists() for path in pair)
    return (None, None) if is_absent else pair
