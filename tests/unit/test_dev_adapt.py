"""A resource written for a cluster runs here with this machine's addresses and the file's own Secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tocsin_cli.dev.adapt import adapt_pipeline, build_environment, build_files, build_own_key, write_files
from tocsin_cli.resource.manifest import Manifest, parse_manifest
from tocsin_cli.resource.problems import ResourceError
from tocsin_core.api_keys import hash_key, make_key

SECURE = """\
apiVersion: tocsin.dev/v1alpha1
kind: NotificationPipeline
metadata: {name: orders}
spec:
  kafka:
    bootstrapServers: ["kafka:9092"]
    securityProtocol: SASL_SSL
    credentialsSecretRef: {name: kafka-user}
    tlsSecretRef: {name: kafka-tls}
    topic: {name: orders, replicationFactor: 3}
  users: {configMapRef: {name: users}}
  redis: {url: "redis://valkey:6379/0", credentialsSecretRef: {name: store}}
  logging: {level: error}
  consumer:
    channels:
    - name: hook
      type: Webhook
      webhook: {url: "https://example.org/hook", secretRef: {name: hook}}
    - name: mail
      type: Email
      email: {host: smtp.example.org, from: a@example.org, credentialsSecretRef: {name: smtp}}
---
kind: ConfigMap
metadata: {name: users}
data: {users.yaml: "1: {name: Ada}"}
---
kind: Secret
metadata: {name: kafka-user}
stringData: {username: ada, password: hunter2}
---
kind: Secret
metadata: {name: kafka-tls}
stringData: {ca.crt: CA}
---
kind: Secret
metadata: {name: store}
stringData: {username: "", password: opensesame}
---
kind: Secret
metadata: {name: hook}
stringData: {secret: whsec_x}
---
kind: Secret
metadata: {name: smtp}
stringData: {username: u, password: p, ca.crt: SMTP-CA}
"""


def manifest(text: str = SECURE) -> Manifest:
    return parse_manifest(text, name="my.yaml")


def test_an_embedded_broker_is_spoken_to_in_plain_text() -> None:
    pipeline = adapt_pipeline(manifest().pipeline, brokers=["127.0.0.1:1"], is_embedded=True, redis_url=None)
    assert pipeline.spec.kafka.bootstrap_servers == ["127.0.0.1:1"]
    assert pipeline.spec.kafka.security_protocol == "PLAINTEXT"
    assert "TOCSIN_KAFKA__USERNAME" not in build_environment(manifest(), pipeline)


def test_brokers_that_are_named_keep_the_resources_credentials() -> None:
    pipeline = adapt_pipeline(manifest().pipeline, brokers=["b:9093"], is_embedded=False, redis_url=None)
    environment = build_environment(manifest(), pipeline)
    assert environment["TOCSIN_KAFKA__USERNAME"] == "ada"
    assert environment["TOCSIN_KAFKA__PASSWORD"] == "hunter2"
    assert build_files(manifest(), pipeline)["kafka-tls/ca.crt"] == b"CA"


def test_the_replication_factor_is_capped_at_one() -> None:
    pipeline = adapt_pipeline(manifest().pipeline, brokers=["b:1"], is_embedded=True, redis_url=None)
    assert pipeline.spec.kafka.topic.replication_factor == 1


def test_a_store_address_replaces_the_resources_and_its_credentials() -> None:
    pipeline = adapt_pipeline(manifest().pipeline, brokers=["b:1"], is_embedded=True, redis_url="redis://127.0.0.1:1")
    assert pipeline.spec.redis is not None
    assert pipeline.spec.redis.url == "redis://127.0.0.1:1"
    assert build_environment(manifest(), pipeline) == {}


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (
            "redis: {url: 'redis://people', credentialsSecretRef: {name: store}}",
            {"TOCSIN_USERS__REDIS__USERNAME": "", "TOCSIN_USERS__REDIS__PASSWORD": "opensesame"},
        ),
        (
            "redis: {url: 'redis://people', credentialsSecretRef: {name: nameless}}",
            {"TOCSIN_USERS__REDIS__USERNAME": "", "TOCSIN_USERS__REDIS__PASSWORD": "opensesame"},
        ),
        ("http: {url: 'http://u/{id}', tokenSecretRef: {name: bearer}}", {"TOCSIN_USERS__HTTP__TOKEN": "sesame"}),
        ("http: {url: 'http://u/{id}'}", {}),
    ],
)
def test_a_user_directory_stays_where_it_is_and_its_secret_reaches_the_environment(
    users: str, expected: dict[str, str]
) -> None:
    text = SECURE.replace("configMapRef: {name: users}", users) + (
        "---\nkind: Secret\nmetadata: {name: bearer}\nstringData: {token: sesame}\n"
        "---\nkind: Secret\nmetadata: {name: nameless}\nstringData: {password: opensesame}\n"
    )
    manifest = parse_manifest(text, name="my.yaml")
    pipeline = adapt_pipeline(manifest.pipeline, brokers=["b:1"], is_embedded=True, redis_url="redis://here")
    assert pipeline.spec.users == manifest.pipeline.spec.users
    found = {key: value for key, value in build_environment(manifest, pipeline).items() if "USERS" in key}
    assert found == expected
    assert "users/users.yaml" not in build_files(manifest, pipeline)


def test_a_token_that_is_not_in_the_file_is_named() -> None:
    users = "http: {url: 'http://u/{id}', tokenSecretRef: {name: bearer}}"
    manifest = parse_manifest(SECURE.replace("configMapRef: {name: users}", users), name="my.yaml")
    with pytest.raises(ResourceError, match=r"spec.users.http.tokenSecretRef: Secret 'bearer' is not in this file"):
        build_environment(manifest, manifest.pipeline)


def test_receipts_are_logged_whatever_the_resource_says() -> None:
    pipeline = adapt_pipeline(manifest().pipeline, brokers=["b:1"], is_embedded=True, redis_url=None)
    assert pipeline.spec.logging.level == "info"


def test_channels_find_their_secrets_where_a_pod_would() -> None:
    pipeline = adapt_pipeline(manifest().pipeline, brokers=["b:1"], is_embedded=True, redis_url=None)
    assert build_files(manifest(), pipeline) == {
        "users/users.yaml": b"1: {name: Ada}",
        "channels/hook/secret": b"whsec_x",
        "channels/mail/username": b"u",
        "channels/mail/password": b"p",
        "channels/mail/ca.crt": b"SMTP-CA",
    }


def test_a_missing_secret_is_named_with_its_field() -> None:
    broken = manifest(SECURE.replace("metadata: {name: hook}", "metadata: {name: other}"))
    pipeline = adapt_pipeline(broken.pipeline, brokers=["b:1"], is_embedded=True, redis_url=None)
    with pytest.raises(ResourceError, match=r"spec\.consumer\.channels\[0\]\.webhook\.secretRef: Secret 'hook'"):
        build_files(broken, pipeline)


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    write_files(tmp_path, {"channels/hook/secret": b"x"})
    assert (tmp_path / "channels/hook/secret").stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_a_path_leaves_nothing_outside(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="may not be a path"):
        write_files(tmp_path / "root", {"kafka-tls/../../x": b""})
    assert not (tmp_path / "x").exists()


def test_api_keys_of_the_file_work_here_and_the_session_has_one_of_its_own() -> None:
    auth = "ingestion: {auth: {mode: APIKey, keysSecretRef: {name: keys}}}"
    digest = hash_key(make_key())
    secret = f'---\nkind: Secret\nmetadata: {{name: keys}}\nstringData: {{billing: "{digest}"}}\n'
    keyed = manifest(SECURE.replace("  consumer:\n", f"  {auth}\n  consumer:\n") + secret)
    pipeline = adapt_pipeline(keyed.pipeline, brokers=["b:1"], is_embedded=True, redis_url=None)
    assert build_files(keyed, pipeline)["api-keys/billing"] == digest.encode()
    key, files = build_own_key(pipeline)
    assert files == {"api-keys/tocsin-dev": hash_key(key).encode()}


def test_a_session_without_api_keys_has_none_of_its_own() -> None:
    assert build_own_key(manifest().pipeline) == ("", {})
