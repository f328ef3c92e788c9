"""What a resource written for a cluster becomes on one machine. Pure: pipeline in, pipeline and files out.

Only where things are changes: brokers, store, replication factor. Everything else of the resource runs as it stands,
or what is seen here would not be what happens there. A user directory stays where the resource says it is: an empty one
in its place would know nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tocsin_cli.resource.manifest import Manifest
from tocsin_cli.resource.problems import ResourceError
from tocsin_core.api_keys import hash_key, make_key
from tocsin_operator.children.config import API_KEYS_FOLDER
from tocsin_operator.model import ChannelSpec, Pipeline, RedisSpec, SecretRef, TopicSpec, UsersSpec

MAX_REPLICATION_FACTOR = 1
RECEIPT_LEVELS = ("debug", "info")
EMAIL_KEYS = ("username", "password")
OWN_KEY = "tocsin-dev"


def adapt_pipeline(pipeline: Pipeline, *, brokers: list[str], is_embedded: bool, redis_url: str | None) -> Pipeline:
    """Return the pipeline with this machine's addresses.

    An embedded broker speaks plain text and knows no users, so the resource's way to its own cluster is set aside
    with its address; with `--brokers` it is kept.
    """
    spec, replace = pipeline.spec, msgspec.structs.replace
    kafka = replace(
        spec.kafka, bootstrap_servers=brokers, topic=_adapt_topic(spec.kafka.topic, is_embedded=is_embedded)
    )
    if is_embedded:
        kafka = replace(kafka, security_protocol="PLAINTEXT", credentials_secret_ref=None, tls_secret_ref=None)
    redis = spec.redis if redis_url is None else RedisSpec(url=redis_url)
    logging = spec.logging
    if logging.level not in RECEIPT_LEVELS:
        logging = replace(logging, level="info")  # receipts are lines of that level, and they are counted here
    return replace(pipeline, spec=replace(spec, kafka=kafka, redis=redis, logging=logging))


def _adapt_topic(topic: TopicSpec, *, is_embedded: bool) -> TopicSpec:
    factor, config = topic.replication_factor, topic.config
    if is_embedded or factor is not None:
        factor = MAX_REPLICATION_FACTOR
        config = {key: value for key, value in config.items() if key != "min.insync.replicas"}
    # A broker that was empty a moment ago has no External topic, so it is made here.
    management = "Managed" if is_embedded else topic.management
    return msgspec.structs.replace(topic, replication_factor=factor, config=config, management=management)


def build_files(manifest: Manifest, pipeline: Pipeline) -> dict[str, bytes]:
    """Return what a pod finds mounted, by path below its root. Raise ResourceError for a Secret that is not there."""
    files = {} if manifest.users_yaml is None else {"users/users.yaml": manifest.users_yaml.encode()}
    tls = pipeline.spec.kafka.tls_secret_ref
    if tls is not None:
        manifest.secret_value(tls, "ca.crt", field="spec.kafka.tlsSecretRef")
        files |= {f"kafka-tls/{key}": value for key, value in manifest.secrets[tls.name].items()}
    keys = pipeline.spec.ingestion.auth.keys_secret_ref
    if keys is not None:  # hashes alone, so a Secret that is not in the file keeps nothing from running
        files |= {f"{API_KEYS_FOLDER}/{key}": value for key, value in manifest.secrets.get(keys.name, {}).items()}
    for index, channel in enumerate(pipeline.spec.consumer.channels):
        field = f"spec.consumer.channels[{index}]"
        for key, value in _channel_secrets(manifest, channel, field):
            files[f"channels/{channel.name}/{key}"] = value
    return files


def build_own_key(pipeline: Pipeline) -> tuple[str, dict[str, bytes]]:
    """Return a key for this session's own clients and the file with its hash; nothing where no keys are asked for."""
    if pipeline.spec.ingestion.auth.keys_secret_ref is None:
        return "", {}
    key = make_key()
    return key, {f"{API_KEYS_FOLDER}/{OWN_KEY}": hash_key(key).encode()}


def build_environment(manifest: Manifest, pipeline: Pipeline) -> dict[str, str]:
    """Return the credentials that a pod gets from `secretKeyRef`. Raise ResourceError for a Secret that is missing."""
    spec = pipeline.spec
    references = [
        ("TOCSIN_KAFKA__", spec.kafka.credentials_secret_ref, "spec.kafka.credentialsSecretRef"),
        (
            "TOCSIN_REDIS__",
            spec.redis.credentials_secret_ref if spec.redis else None,
            "spec.redis.credentialsSecretRef",
        ),
    ]
    found = {
        f"{prefix}{key.upper()}": manifest.secret_value(reference, key, field=field).decode()
        for prefix, reference, field in references
        if reference is not None
        for key in ("username", "password")
    }
    return found | _build_users_environment(manifest, spec.users)


def _build_users_environment(manifest: Manifest, users: UsersSpec) -> dict[str, str]:
    if users.http is not None and users.http.token_secret_ref is not None:
        token = manifest.secret_value(users.http.token_secret_ref, "token", field="spec.users.http.tokenSecretRef")
        return {"TOCSIN_USERS__HTTP__TOKEN": token.decode()}
    if users.redis is not None and users.redis.credentials_secret_ref is not None:
        reference, field = users.redis.credentials_secret_ref, "spec.users.redis.credentialsSecretRef"
        password = manifest.secret_value(reference, "password", field=field)
        username = manifest.secrets[reference.name].get("username", b"")
        return {
            "TOCSIN_USERS__REDIS__USERNAME": username.decode(),
            "TOCSIN_USERS__REDIS__PASSWORD": password.decode(),
        }
    return {}


def write_files(root: Path, files: dict[str, bytes]) -> None:
    """Write the files below `root`, readable by their owner alone. Raise ResourceError for a name that leaves it."""
    for name, content in files.items():
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            raise ResourceError(f"a key of a Secret may not be a path: {name!r}")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_bytes(content)


def _channel_secrets(manifest: Manifest, channel: ChannelSpec, field: str) -> Iterator[tuple[str, bytes]]:
    if channel.webhook is not None and channel.webhook.secret_ref is not None:
        reference = channel.webhook.secret_ref
        yield "secret", manifest.secret_value(reference, "secret", field=f"{field}.webhook.secretRef")
    if channel.email is not None and channel.email.credentials_secret_ref is not None:
        yield from _email_secrets(manifest, channel.email.credentials_secret_ref, field)


def _email_secrets(manifest: Manifest, reference: SecretRef, field: str) -> Iterator[tuple[str, bytes]]:
    for key in EMAIL_KEYS:
        yield key, manifest.secret_value(reference, key, field=f"{field}.email.credentialsSecretRef")
    if "ca.crt" in manifest.secrets[reference.name]:
        yield "ca.crt", manifest.secrets[reference.name]["ca.crt"]
