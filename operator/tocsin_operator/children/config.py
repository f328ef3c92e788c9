"""The `config.yaml` that both services of a pipeline read, and the ConfigMap that carries it.

One file for both services, because they must agree on topic, group and users; what differs between them is small.
Secrets never stand in it: user names and passwords come from the environment, keys and certificates from mounted
files, whose paths this module alone decides (`mounts.py` mounts to the same names). `tocsin dev`
builds its processes' configuration with the same function, under another root, so that what a developer runs and
what a cluster runs cannot drift apart.
"""

from __future__ import annotations

import hashlib
from typing import Any

import yaml

from tocsin_operator.children.naming import Role, build_metadata, name_config
from tocsin_operator.model import (
    AuthSpec,
    ChannelSpec,
    EmailSpec,
    KafkaSpec,
    Pipeline,
    StreamSpec,
    UsersSpec,
    WebhookSpec,
)

ROOT = "/etc/tocsin"
CONFIG_FILE = "config.yaml"
USERS_FILE = "users.yaml"
API_KEYS_FOLDER = "api-keys"
INGESTION_PORT = 8080
HEALTH_PORT = 9090
INGESTION_DRAIN_SECONDS = 20
CONSUMER_DRAIN_SECONDS = 30
# One file serves both roles; a change of what only the other one reads must not roll a role's pods.
UNREAD_SECTIONS: dict[Role, frozenset[str]] = {
    "ingestion": frozenset({"consumer", "delivery", "redis"}),
    "consumer": frozenset({"ingestion"}),
}


def build_service_config(pipeline: Pipeline, *, root: str = ROOT) -> dict[str, Any]:
    """Return the content of config.yaml for `pipeline`, whose files lie under `root`; it holds no secret."""
    spec = pipeline.spec
    config: dict[str, Any] = {
        "pipeline": {"namespace": pipeline.namespace, "name": pipeline.name},
        "kafka": _build_kafka(pipeline, root),
        "users": _build_users(spec.users, root),
        "ingestion": {
            "port": INGESTION_PORT,
            "auth": _build_auth(spec.ingestion.auth, root),
            "drain_seconds": INGESTION_DRAIN_SECONDS,
            **({"stream": _build_stream(spec.ingestion.stream)} if pipeline.has_streams else {}),
        },
        "consumer": {
            "concurrency": spec.consumer.concurrency,
            "drain_seconds": CONSUMER_DRAIN_SECONDS,
            "channels": [_build_channel(channel, root) for channel in spec.consumer.channels],
        },
        "delivery": {
            "max_attempts": spec.delivery.max_attempts,
            "ordering": spec.delivery.ordering,
            "ttl_seconds": spec.delivery.ttl_seconds,
            "dead_letter_topic": pipeline.dead_letter_topic,
        },
        "health": {"port": HEALTH_PORT},
        "log": {
            "level": spec.logging.level,
            "rotation_size": spec.logging.rotation_size,
            "rotation_count": spec.logging.rotation_count,
        },
    }
    if spec.redis is not None:
        config["redis"] = {"url": spec.redis.url}
    return config


def render_service_config(pipeline: Pipeline) -> str:
    """Return config.yaml as text: the same pipeline always gives the same bytes."""
    return yaml.safe_dump(build_service_config(pipeline), sort_keys=True, allow_unicode=True)


def hash_service_config(pipeline: Pipeline, role: Role) -> str:
    """Return what a role's pod template carries, so that its pods roll when what they read changed and only then."""
    config = build_service_config(pipeline)
    unread = UNREAD_SECTIONS[role]
    if pipeline.has_streams:  # who is connected stands in the store
        unread -= {"redis"}
    read = {section: content for section, content in config.items() if section not in unread}
    if role == "ingestion":  # which channels there are is all it wants to know of consumers
        read["consumer"] = {"channels": [channel["name"] for channel in config["consumer"]["channels"]]}
    return hashlib.sha256(yaml.safe_dump(read, sort_keys=True).encode()).hexdigest()[:16]


def build_config_map(pipeline: Pipeline) -> dict[str, Any]:
    """Return the ConfigMap both services mount."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(pipeline, name_config(pipeline)),
        "data": {CONFIG_FILE: render_service_config(pipeline)},
    }


def _build_users(users: UsersSpec, root: str) -> dict[str, Any]:
    """Return the section `users`; whose credentials come from the environment."""
    block: dict[str, Any] = {}
    if users.redis is not None:
        redis = users.redis
        block["redis"] = {
            "url": redis.url,
            "key_pattern": redis.key_pattern,
            "timeout_seconds": redis.timeout_seconds,
        }
    elif users.http is not None:
        block["http"] = {"url": users.http.url, "timeout_seconds": users.http.timeout_seconds}
    else:
        block["file"] = f"{root}/users/{USERS_FILE}"
    if users.cache is not None:
        cache = users.cache
        block["cache"] = {
            "entries": cache.entries,
            "ttl_seconds": cache.ttl_seconds,
            "unknown_ttl_seconds": cache.unknown_ttl_seconds,
            "stale_seconds": cache.stale_seconds,
        }
    return block


def _build_kafka(pipeline: Pipeline, root: str) -> dict[str, Any]:
    kafka = pipeline.spec.kafka
    return {
        "brokers": list(kafka.bootstrap_servers),
        "security_protocol": kafka.security_protocol,
        "sasl_mechanism": kafka.sasl_mechanism,
        "topic": kafka.topic.name,
        "consumer_group": pipeline.consumer_group,
        "retries": kafka.retries,
        "producer_return_successes": kafka.producer_return_successes,
        **_build_kafka_tls(kafka, f"{root}/kafka-tls"),
    }


def _build_kafka_tls(kafka: KafkaSpec, folder: str) -> dict[str, Any]:
    if kafka.tls_secret_ref is None:
        return {}
    files = {"ca_file": "ca.crt", "cert_file": "tls.crt", "key_file": "tls.key"}
    return {"tls": {key: f"{folder}/{name}" for key, name in files.items()}}


def _build_auth(auth: AuthSpec, root: str) -> dict[str, Any]:
    block: dict[str, Any] = {"mode": auth.mode}
    if auth.keys_secret_ref is not None:
        block["keys_folder"] = f"{root}/{API_KEYS_FOLDER}"
    if auth.jwt is not None:
        jwt = {
            "issuer": auth.jwt.issuer,
            "audience": auth.jwt.audience,
            "jwks_url": auth.jwt.jwks_url,
            "leeway_seconds": auth.jwt.leeway_seconds,
        }
        block["jwt"] = jwt | ({"send_scope": auth.jwt.send_scope} if auth.jwt.send_scope else {})
    if auth.rate_limit is not None:
        limit = {"notifications_per_second": auth.rate_limit.notifications_per_second}
        block["rate_limit"] = limit | ({"burst": auth.rate_limit.burst} if auth.rate_limit.burst else {})
    return block


def _build_stream(stream: StreamSpec) -> dict[str, Any]:
    return {
        "max_connections": stream.max_connections,
        "max_connections_per_user": stream.max_connections_per_user,
        "allowed_origins": list(stream.allowed_origins),
    }


def _build_channel(channel: ChannelSpec, root: str) -> dict[str, Any]:
    folder = f"{root}/channels/{channel.name}"
    block: dict[str, Any] = {"name": channel.name, "type": channel.type}
    if channel.concurrency is not None:
        block["concurrency"] = channel.concurrency
    if channel.webhook is not None:
        block["webhook"] = _build_webhook(channel.webhook, folder)
    if channel.email is not None:
        block["email"] = _build_email(channel.email, folder)
    return block


def _build_webhook(webhook: WebhookSpec, folder: str) -> dict[str, Any]:
    secret = {"secret_file": f"{folder}/secret"} if webhook.secret_ref else {}
    return {"url": webhook.url, "timeout_seconds": webhook.timeout_seconds, **secret}


def _build_email(email: EmailSpec, folder: str) -> dict[str, Any]:
    files = {"username_file": "username", "password_file": "password", "ca_file": "ca.crt"}
    mounted = {key: f"{folder}/{name}" for key, name in files.items()} if email.credentials_secret_ref else {}
    return {
        "host": email.host,
        "port": email.port,
        "from_address": email.from_,
        "security": email.security,
        "timeout_seconds": email.timeout_seconds,
        **mounted,
    }
