"""What the operator renders is what the services accept."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pipelines import Changes, parse_stored
from tocsin_core.settings import Settings, load_settings
from tocsin_operator.children.config import build_service_config, hash_service_config, render_service_config
from tocsin_operator.children.mounts import build_mounts, build_volumes
from tocsin_operator.children.naming import ROLES, Role
from tocsin_operator.model import Pipeline

EVERYTHING: Changes = {
    "kafka": {
        "bootstrapServers": ["b-1.example.org:9093", "b-2.example.org:9093"],
        "securityProtocol": "SASL_SSL",
        "saslMechanism": "SCRAM-SHA-256",
        "credentialsSecretRef": {"name": "kafka-user"},
        "tlsSecretRef": {"name": "kafka-tls"},
        "consumerGroup": "orders-group",
        "topic": {"name": "orders", "partitions": 24, "replicationFactor": 3},
        "retries": 3,
        "producerReturnSuccesses": False,
    },
    "users": {"configMapRef": {"name": "people"}},
    "ingestion": {
        "auth": {
            "mode": "JWT",
            "jwt": {
                "issuer": "https://id.example.org",
                "audience": "orders",
                "jwksURL": "https://id.example.org/keys",
                "leewaySeconds": 5,
                "sendScope": "notifications:send",
            },
            "rateLimit": {"notificationsPerSecond": 50, "burst": 200},
        },
        "stream": {"maxConnections": 9, "maxConnectionsPerUser": 3, "allowedOrigins": ["https://app.example.org"]},
    },
    "redis": {"url": "redis://valkey:6379/0", "credentialsSecretRef": {"name": "valkey"}},
    "consumer": {
        "concurrency": 10,
        "channels": [
            {"name": "log", "type": "Log"},
            {
                "name": "hook",
                "type": "Webhook",
                "concurrency": 3,
                "webhook": {"url": "https://example.org/n", "secretRef": {"name": "s"}, "timeoutSeconds": 7},
            },
            {
                "name": "mail",
                "type": "Email",
                "email": {
                    "host": "smtp.example.org",
                    "from": "tocsin@example.org",
                    "credentialsSecretRef": {"name": "smtp"},
                },
            },
            {"name": "screen", "type": "WebSocket"},
        ],
    },
    "delivery": {"maxAttempts": 7, "ordering": "Strict", "ttlSeconds": 60, "deadLetterTopic": "graveyard"},
    "logging": {"level": "debug", "rotationSize": 5, "rotationCount": 2},
}


def load(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TOCSIN_KAFKA__USERNAME", "ada")
    monkeypatch.setenv("TOCSIN_KAFKA__PASSWORD", "from-the-environment")
    file = tmp_path / "config.yaml"
    file.write_text(render_service_config(pipeline), encoding="utf-8")
    return load_settings(file)


def test_the_smallest_pipeline_renders_settings_that_the_services_accept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(parse_stored({}), tmp_path, monkeypatch)
    assert settings.kafka.brokers == ["kafka:9092"]
    assert settings.kafka.consumer_group == "shop.orders"
    assert settings.dead_letter_topic == "orders.dlq"
    assert tuple(tier.topic for tier in settings.retry_tiers) == parse_stored({}).retry_topics
    assert settings.delivery.ordering == "Relaxed"
    assert settings.redis is None
    assert str(settings.users.file) == "/etc/tocsin/users/users.yaml"


def test_every_field_of_the_spec_reaches_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(parse_stored({"spec": EVERYTHING}), tmp_path, monkeypatch)
    assert settings.kafka.brokers == ["b-1.example.org:9093", "b-2.example.org:9093"]
    assert (settings.kafka.security_protocol, settings.kafka.sasl_mechanism) == ("SASL_SSL", "SCRAM-SHA-256")
    assert str(settings.kafka.tls.key_file) == "/etc/tocsin/kafka-tls/tls.key"
    assert (settings.kafka.retries, settings.kafka.producer_return_successes) == (3, False)
    assert settings.kafka.consumer_group == "orders-group"
    assert settings.redis is not None
    assert settings.redis.url == "redis://valkey:6379/0"
    stream = settings.ingestion.stream
    assert settings.has_streams
    assert (stream.max_connections, stream.max_connections_per_user) == (9, 3)
    assert stream.allowed_origins == ["https://app.example.org"]
    auth = settings.ingestion.auth
    assert auth.jwt is not None
    assert (auth.jwt.issuer, auth.jwt.audience) == ("https://id.example.org", "orders")
    assert (auth.jwt.jwks_url, auth.jwt.leeway_seconds) == ("https://id.example.org/keys", 5)
    assert auth.jwt.send_scope == "notifications:send"
    assert auth.rate_limit is not None
    assert (auth.rate_limit.notifications_per_second, auth.rate_limit.burst) == (50, 200)
    assert settings.consumer.concurrency == 10
    assert settings.consumer.channel_limits == {"log": 10, "hook": 3, "mail": 10, "screen": 10}
    hook, mail = settings.consumer.channels[1].webhook, settings.consumer.channels[2].email
    assert hook is not None
    assert (hook.url, hook.timeout_seconds) == ("https://example.org/n", 7)
    assert str(hook.secret_file) == "/etc/tocsin/channels/hook/secret"
    assert mail is not None
    assert (mail.host, mail.port, mail.security) == ("smtp.example.org", 587, "STARTTLS")
    assert str(mail.password_file) == "/etc/tocsin/channels/mail/password"
    assert (settings.delivery.max_attempts, settings.delivery.ttl_seconds) == (7, 60)
    assert settings.delivery.ordering == "Strict"
    assert settings.dead_letter_topic == "graveyard"
    assert (settings.log.level, settings.log.rotation_size, settings.log.rotation_count) == ("debug", 5, 2)


def test_api_keys_lie_where_ingestion_alone_mounts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = {"mode": "APIKey", "keysSecretRef": {"name": "orders-keys"}, "rateLimit": {"notificationsPerSecond": 5}}
    pipeline = parse_stored({"spec.ingestion.auth": auth})
    settings = load(pipeline, tmp_path, monkeypatch).ingestion.auth
    assert settings.keys_folder is not None
    assert settings.rate_limit is not None
    assert settings.rate_limit.burst is None
    paths = {mount["mountPath"]: mount["name"] for mount in build_mounts(pipeline, "ingestion")}
    volumes = {volume["name"]: volume for volume in build_volumes(pipeline, "ingestion")}
    assert volumes[paths[str(settings.keys_folder)]]["secret"]["secretName"] == "orders-keys"
    assert "orders-keys" not in render_service_config(pipeline)
    assert "orders-keys" not in str(build_volumes(pipeline, "consumer"))
    assert str(settings.keys_folder) not in str(build_mounts(pipeline, "consumer"))


def test_a_change_of_who_may_post_rolls_ingestion_alone() -> None:
    pipeline = parse_stored({})
    keyed = parse_stored({"spec.ingestion.auth": {"mode": "APIKey", "keysSecretRef": {"name": "orders-keys"}}})
    assert hash_service_config(keyed, "ingestion") != hash_service_config(pipeline, "ingestion")
    assert hash_service_config(keyed, "consumer") == hash_service_config(pipeline, "consumer")


def test_no_user_name_and_no_password_stand_in_the_config() -> None:
    text = render_service_config(parse_stored({"spec": EVERYTHING}))
    assert "username:" not in text
    assert "password:" not in text


def test_another_root_moves_every_path() -> None:
    config = build_service_config(parse_stored({"spec": EVERYTHING}), root="/tmp/dev")
    assert "/etc/tocsin" not in str(config)
    assert config["kafka"]["tls"]["ca_file"] == "/tmp/dev/kafka-tls/ca.crt"


@pytest.mark.parametrize("role", ROLES)
def test_the_hash_follows_the_config_and_nothing_else(role: Role) -> None:
    pipeline = parse_stored({})
    assert hash_service_config(pipeline, role) == hash_service_config(parse_stored({}), role)
    scaled = parse_stored({"spec.consumer.replicas": 9})
    assert hash_service_config(scaled, role) == hash_service_config(pipeline, role)
    renewed = msgspec.structs.replace(pipeline, generation=99)
    assert hash_service_config(renewed, role) == hash_service_config(pipeline, role)
    louder = parse_stored({"spec.logging.level": "debug"})
    assert hash_service_config(louder, role) != hash_service_config(pipeline, role)


def test_a_change_for_consumers_alone_rolls_consumers_alone() -> None:
    pipeline, slower = parse_stored({}), parse_stored({"spec.consumer.concurrency": 1})
    assert hash_service_config(slower, "ingestion") == hash_service_config(pipeline, "ingestion")
    assert hash_service_config(slower, "consumer") != hash_service_config(pipeline, "consumer")


def test_the_store_rolls_ingestion_where_people_connect_to_it_and_only_there() -> None:
    redis, screens = {"spec.redis": {"url": "redis://a"}}, {"spec.consumer.channels.0.type": "WebSocket"}
    moved = {"spec.redis": {"url": "redis://b"}}

    def hash_ingestion(*changes: Changes) -> str:
        return hash_service_config(parse_stored({key: each[key] for each in changes for key in each}), "ingestion")

    assert hash_ingestion(redis) == hash_ingestion(moved)
    assert hash_ingestion(redis, screens) != hash_ingestion(redis)
    assert hash_ingestion(redis, screens) != hash_ingestion(moved, screens)


CACHE = {"entries": 7, "ttlSeconds": 30, "unknownTtlSeconds": 0, "staleSeconds": 90}


def test_users_in_a_redis_reach_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_USERS__REDIS__PASSWORD", "from-the-environment")
    redis = {"url": "redis://people:6379/3", "keyPattern": "u/{id}", "timeoutSeconds": 7}
    users = {"redis": {**redis, "credentialsSecretRef": {"name": "people"}}, "cache": CACHE}
    settings = load(parse_stored({"spec.users": users}), tmp_path, monkeypatch).users
    assert (settings.file, settings.http) == (None, None)
    assert settings.redis is not None
    assert (settings.redis.url, settings.redis.key_pattern) == ("redis://people:6379/3", "u/{id}")
    assert settings.redis.timeout_seconds == 7
    assert settings.redis.password.get_secret_value() == "from-the-environment"
    cache = settings.cache
    assert (cache.entries, cache.ttl_seconds, cache.unknown_ttl_seconds, cache.stale_seconds) == (7, 30, 0, 90)


def test_users_behind_http_reach_the_settings_and_their_token_does_not_reach_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOCSIN_USERS__HTTP__TOKEN", "from-the-environment")
    http = {"url": "https://users/{id}", "timeoutSeconds": 7, "tokenSecretRef": {"name": "people"}}
    pipeline = parse_stored({"spec.users": {"http": http}})
    settings = load(pipeline, tmp_path, monkeypatch).users
    assert settings.http is not None
    assert (settings.http.url, settings.http.timeout_seconds) == ("https://users/{id}", 7)
    assert settings.http.token.get_secret_value() == "from-the-environment"
    text = render_service_config(pipeline)
    assert "token" not in text
    assert "people" not in text


@pytest.mark.parametrize("role", ROLES)
def test_a_change_of_the_user_directory_rolls_both_roles(role: Role) -> None:
    one, other = ({"spec.users": {"http": {"url": f"https://users/{name}/{{id}}"}}} for name in "ab")
    assert hash_service_config(parse_stored(one), role) != hash_service_config(parse_stored(other), role)
