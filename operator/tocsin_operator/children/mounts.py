"""What a pod is given to read: config, users, certificates and keys as files, credentials as environment.

The paths are those `config.py` writes into config.yaml. ConfigMaps are mounted whole, never by subPath: only then does
a change of the users reach a running pod. A Secret that is missing keeps the pod waiting, and the pod starts by itself
once the Secret is there. The consumer alone sees the channels' Secrets, and ingestion alone the hashes of API keys.
"""

from __future__ import annotations

from typing import Any

from tocsin_operator.children.config import API_KEYS_FOLDER, ROOT
from tocsin_operator.children.naming import Role, name_config
from tocsin_operator.model import ChannelSpec, Pipeline, UsersSpec

SECRET_MODE = 0o440  # the pod's group reads, nobody writes
TMP_SIZE_LIMIT = "64Mi"


def build_environment(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Return the environment variables: credentials, by reference."""
    kafka, redis = pipeline.spec.kafka, pipeline.spec.redis
    variables: list[dict[str, Any]] = []
    if kafka.credentials_secret_ref is not None:
        variables += _refer("TOCSIN_KAFKA", kafka.credentials_secret_ref.name)
    if redis is not None and redis.credentials_secret_ref is not None:
        # A store with a password and no user is the common case.
        variables += _refer("TOCSIN_REDIS", redis.credentials_secret_ref.name, username_is_optional=True)
    return [*variables, *_refer_users(pipeline.spec.users)]


def build_volumes(pipeline: Pipeline, role: Role) -> list[dict[str, Any]]:
    """Return the volumes of a role's pods."""
    tls = pipeline.spec.kafka.tls_secret_ref
    users = pipeline.spec.users.config_map_ref
    return [
        {"name": "config", "configMap": {"name": name_config(pipeline)}},
        *([{"name": "users", "configMap": {"name": users.name}}] if users else []),
        {"name": "tmp", "emptyDir": {"sizeLimit": TMP_SIZE_LIMIT}},
        *([_mount_secret("kafka-tls", tls.name)] if tls else []),
        *([_mount_secret(API_KEYS_FOLDER, keys)] if (keys := _find_keys_secret(pipeline, role)) else []),
        *[_mount_secret(volume, secret) for volume, secret, _ in _list_channel_secrets(pipeline, role)],
    ]


def build_mounts(pipeline: Pipeline, role: Role) -> list[dict[str, Any]]:
    """Return where a role's container sees its volumes."""
    read_only = {
        "config": f"{ROOT}/config",
        **({"users": f"{ROOT}/users"} if pipeline.spec.users.config_map_ref else {}),
        **({"kafka-tls": f"{ROOT}/kafka-tls"} if pipeline.spec.kafka.tls_secret_ref else {}),
        **({API_KEYS_FOLDER: f"{ROOT}/{API_KEYS_FOLDER}"} if _find_keys_secret(pipeline, role) else {}),
        **{volume: f"{ROOT}/channels/{name}" for volume, _, name in _list_channel_secrets(pipeline, role)},
    }
    mounts: list[dict[str, Any]] = [
        {"name": volume, "mountPath": path, "readOnly": True} for volume, path in read_only.items()
    ]
    return [*mounts, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the one writable place of a read-only root


def find_channel_secret(channel: ChannelSpec) -> str | None:
    """Return the name of the Secret a channel needs, None where it needs none."""
    reference = None
    if channel.webhook is not None:
        reference = channel.webhook.secret_ref
    if channel.email is not None:
        reference = channel.email.credentials_secret_ref
    return reference.name if reference else None


def _find_keys_secret(pipeline: Pipeline, role: Role) -> str | None:
    reference = pipeline.spec.ingestion.auth.keys_secret_ref
    return reference.name if reference is not None and role == "ingestion" else None


def _list_channel_secrets(pipeline: Pipeline, role: Role) -> list[tuple[str, str, str]]:
    if role != "consumer":
        return []
    named = [(channel.name, find_channel_secret(channel)) for channel in pipeline.spec.consumer.channels]
    # Numbered, because a channel's name may be as long as a volume's and leaves no room for a prefix.
    return [(f"channel-{index}", secret, name) for index, (name, secret) in enumerate(named) if secret]


def _mount_secret(volume: str, secret: str) -> dict[str, Any]:
    return {"name": volume, "secret": {"secretName": secret, "defaultMode": SECRET_MODE}}


def _refer_users(users: UsersSpec) -> list[dict[str, Any]]:
    if users.redis is not None and users.redis.credentials_secret_ref is not None:
        return _refer("TOCSIN_USERS__REDIS", users.redis.credentials_secret_ref.name, username_is_optional=True)
    if users.http is not None and users.http.token_secret_ref is not None:
        token = {"name": users.http.token_secret_ref.name, "key": "token"}
        return [{"name": "TOCSIN_USERS__HTTP__TOKEN", "valueFrom": {"secretKeyRef": token}}]
    return []


def _refer(prefix: str, secret: str, *, username_is_optional: bool = False) -> list[dict[str, Any]]:
    optional = {"optional": True} if username_is_optional else {}
    username = {"name": secret, "key": "username", **optional}
    password = {"name": secret, "key": "password"}
    return [
        {"name": f"{prefix}__USERNAME", "valueFrom": {"secretKeyRef": username}},
        {"name": f"{prefix}__PASSWORD", "valueFrom": {"secretKeyRef": password}},
    ]
