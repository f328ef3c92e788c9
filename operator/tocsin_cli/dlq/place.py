"""Where the dead letters are: a resource with `-f`, or brokers and topics by flag; credentials from the environment.

The resource is not checked against the CRD here, as `tocsin dev` does it: what comes out of `kubectl get -o yaml` was
checked by an API server, and carries fields that no author writes. The command also runs in pods, whose image could not
check it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tocsin_cli.resource.contents import MAX_FILE_BYTES, find_pipeline, read_secrets, read_text
from tocsin_cli.resource.documents import read_documents
from tocsin_cli.resource.problems import ResourceError
from tocsin_core.producer import RecordProducer
from tocsin_core.settings import KafkaSettings, load_kafka
from tocsin_operator.model import Pipeline, SecretRef, parse_pipeline

CLIENT_ID = "tocsin-dlq"
STDIN = "-"
MAX_RECORD_BYTES = 100_000_000
"""What a dead letter may measure here: the broker's own limit decides, not the one of a pipeline's consumers."""
DELIVERY_TIMEOUT_SECONDS = 30.0
CLOSE_SECONDS = 30.0


class Place(NamedTuple):
    """The topics of one pipeline, how to reach them, and how long its notifications live (None: not known)."""

    kafka: KafkaSettings
    dead_letter_topic: str
    ttl_seconds: int | None

    @property
    def topic(self) -> str:
        """Return the pipeline's own topic, which a replay writes to."""
        return self.kafka.topic


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which pipeline is meant."""
    place = parser.add_argument_group(
        "where (-f, or --brokers and --topic; TOCSIN_KAFKA__USERNAME, __PASSWORD and the like as for the services)"
    )
    place.add_argument("-f", "--file", metavar="FILE", help="the resource, or - for standard input")
    place.add_argument("--brokers", metavar="HOST:PORT,...", help="the Kafka brokers, instead of the resource's")
    place.add_argument("--topic", help="the pipeline's topic")
    place.add_argument("--dead-letter-topic", metavar="TOPIC", help="its dead-letter topic (default: <topic>.dlq)")


def find_place(arguments: argparse.Namespace) -> Place:
    """Return the place the flags name. Raise ResourceError or SettingsError saying what is missing."""
    resource, dead_letters, ttl_seconds = _read_resource(arguments.file) if arguments.file else ({}, None, None)
    flags: dict[str, Any] = {
        "producer_return_successes": True,
        "message_max_bytes": MAX_RECORD_BYTES,
        "delivery_timeout_seconds": DELIVERY_TIMEOUT_SECONDS,
        **({"brokers": arguments.brokers} if arguments.brokers else {}),
        **({"topic": arguments.topic} if arguments.topic else {}),
    }
    if not resource and not arguments.topic:
        raise ResourceError("which pipeline? Name its resource with -f FILE, or give --brokers and --topic")
    kafka = load_kafka(flags=flags, resource=resource)
    return Place(kafka, arguments.dead_letter_topic or dead_letters or f"{kafka.topic}.dlq", ttl_seconds)


@asynccontextmanager
async def producing(place: Place) -> AsyncIterator[RecordProducer]:
    """Open a producer, and wait for what it has sent before it closes. Raise SettingsError or KafkaFailure."""
    producer = RecordProducer(place.kafka, client_id=CLIENT_ID)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.close(CLOSE_SECONDS)


def _read_resource(file: str) -> tuple[dict[str, Any], str, int]:
    name = "standard input" if file == STDIN else file
    documents = read_documents(_read(file), name=name)
    pipeline = parse_pipeline(find_pipeline(documents, name=name).value)
    secrets = read_secrets(documents, name=name)
    return _build_kafka(pipeline, secrets), pipeline.dead_letter_topic, pipeline.spec.delivery.ttl_seconds


def _read(file: str) -> str:
    if file != STDIN:
        return read_text(Path(file))
    content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ResourceError(f"standard input: larger than {MAX_FILE_BYTES} bytes")
    return content.decode("utf-8", "replace")


def _build_kafka(pipeline: Pipeline, secrets: dict[str, dict[str, bytes]]) -> dict[str, Any]:
    """Return the section as the services get it; a Secret that is not in the file is left to the environment."""
    spec = pipeline.spec.kafka
    names = {"ca_pem": "ca.crt", "cert_pem": "tls.crt", "key_pem": "tls.key"}
    tls = _pick(secrets, spec.tls_secret_ref, names)
    return {
        "brokers": list(spec.bootstrap_servers),
        "security_protocol": spec.security_protocol,
        "sasl_mechanism": spec.sasl_mechanism,
        "topic": spec.topic.name,
        **_pick(secrets, spec.credentials_secret_ref, {"username": "username", "password": "password"}),
        **({"tls": tls} if tls else {}),
    }


def _pick(secrets: dict[str, dict[str, bytes]], reference: SecretRef | None, names: dict[str, str]) -> dict[str, str]:
    secret = secrets.get(reference.name, {}) if reference else {}
    return {key: secret[name].decode("utf-8", "replace") for key, name in names.items() if name in secret}
