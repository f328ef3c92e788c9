"""The samples are what users copy, so each is checked as the API server and `tocsin dev` would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tocsin_cli.resource.manifest import read_manifest

SAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "samples"
PIPELINES = ["quickstart.yaml", "webhook.yaml", "email.yaml", "websocket.yaml", "directory.yaml", "api-keys.yaml"]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((SAMPLES / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", PIPELINES)
def test_every_sample_is_a_valid_pipeline_with_all_it_names(name: str) -> None:
    manifest = read_manifest(SAMPLES / name)
    spec = manifest.pipeline.spec
    for reference, key in [
        (spec.kafka.credentials_secret_ref, "password"),
        (spec.kafka.tls_secret_ref, "ca.crt"),
        (spec.ingestion.auth.keys_secret_ref, "billing"),
        (spec.users.http.token_secret_ref if spec.users.http else None, "token"),
        *((channel.webhook.secret_ref, "secret") for channel in spec.consumer.channels if channel.webhook),
        *((channel.email.credentials_secret_ref, "password") for channel in spec.consumer.channels if channel.email),
    ]:
        if reference is not None:
            assert manifest.secret_value(reference, key, field=reference.name)


def test_every_file_of_the_folder_is_looked_at() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == {*PIPELINES, "kafka-dev.yaml"}


def test_the_quickstart_is_ten_lines_and_knows_a_hundred_users() -> None:
    text = (SAMPLES / "quickstart.yaml").read_text(encoding="utf-8").split("---")[0]
    assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 10
    manifest = read_manifest(SAMPLES / "quickstart.yaml")
    assert manifest.user_ids == tuple(str(number) for number in range(1, 101))


def test_the_quickstart_logs_from_the_kafka_that_the_sample_broker_serves() -> None:
    spec = read_manifest(SAMPLES / "quickstart.yaml").pipeline.spec
    service, broker = documents("kafka-dev.yaml")
    assert spec.kafka.bootstrap_servers == [f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"]
    assert [channel.type for channel in spec.consumer.channels] == ["Log"]
    assert service["spec"]["selector"].items() <= broker["spec"]["template"]["metadata"]["labels"].items()


def test_the_sample_broker_advertises_a_name_that_other_namespaces_resolve() -> None:
    _, broker = documents("kafka-dev.yaml")
    (container,) = broker["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each for each in container["env"]}
    assert environment["KAFKA_ADVERTISED_LISTENERS"]["value"] == "PLAINTEXT://kafka.$(NAMESPACE).svc:9092"
    # $(NAMESPACE) is only expanded from a variable that stands above it.
    assert next(iter(environment)) == "NAMESPACE"
