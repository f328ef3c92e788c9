"""The Kafka clusters that pipelines name: one admin client for each distinct connection, whoever asks.

A client per pipeline was refused: a thousand pipelines on one cluster would hold a thousand connections to each of
its brokers. Credentials come from the Secrets the pipeline names, are read again when they may have changed, and stay
inside the connection: what a connection is known by here is a digest.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ipaddress
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import SecretStr, ValidationError

from tocsin_core.admin import KafkaAdmin
from tocsin_core.errors import KafkaFailure
from tocsin_core.settings import KafkaConnection, TLSSettings
from tocsin_operator.errors import AccessForbidden, ObjectMissing
from tocsin_operator.model import Pipeline

SECRET_SECONDS = 60.0  # a changed Secret is noticed within
IDLE_SECONDS = 600.0  # a client nobody asked for so long is closed
SECRET_READER = "tocsin-secret-reader"  # noqa: S105 - the ClusterRole's name where the release is called tocsin
CREDENTIALS_KEYS = ("username", "password")
TLS_KEYS = ("ca.crt", "tls.crt", "tls.key")
SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:\"\s]+):([^:\"\s]+)")


class SecretProblem(KafkaFailure):
    """A Secret that a connection needs cannot be used; `reason` is the condition's."""

    reason: ClassVar[str] = "SecretProblem"


class SecretMissing(SecretProblem):
    """There is no such Secret."""

    reason = "SecretMissing"


class SecretForbidden(SecretProblem):
    """The operator may not read the Secret."""

    reason = "SecretForbidden"


class SecretIncomplete(SecretProblem):
    """The Secret lacks a key, or a value is not what it should be."""

    reason = "SecretIncomplete"


class ConnectionInvalid(SecretProblem):
    """The connection cannot be made from the spec."""

    reason = "ConnectionInvalid"


class ObjectReader(Protocol):
    """The part of the Kubernetes API that is needed here."""

    async def read(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """Return one object."""


@dataclass(slots=True)
class _Client:
    admin: KafkaAdmin
    used_at_seconds: float


@dataclass(frozen=True, slots=True)
class _Secret:
    data: dict[str, str]  # in base64, as the API hands it out
    read_at_seconds: float


class KafkaClusters:
    """All admin clients of the operator."""

    def __init__(
        self,
        api: ObjectReader,
        *,
        client_id: str = "tocsin-operator",
        secret_reader: str = SECRET_READER,
        open_admin: Callable[..., KafkaAdmin] = KafkaAdmin,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._client_id = client_id
        self._secret_reader = secret_reader
        self._open_admin = open_admin
        self._now = now
        self._clients: dict[str, _Client] = {}
        self._secrets: dict[tuple[str, str], _Secret] = {}

    async def admin_for(self, pipeline: Pipeline) -> KafkaAdmin:
        """Return the admin client of the pipeline's cluster, opened if need be.

        Raise SecretMissing, SecretForbidden, SecretIncomplete or ConnectionInvalid, all with advice.
        """
        connection = await self._connect(pipeline)
        fingerprint = fingerprint_connection(connection)
        client = self._clients.get(fingerprint)
        if client is None:
            client = _Client(self._open_admin(connection, client_id=self._client_id), self._now())
            self._clients[fingerprint] = client
        client.used_at_seconds = self._now()
        return client.admin

    def forget_secrets(self, pipeline: Pipeline) -> None:
        """Read the pipeline's Secrets again next time: what they said was not accepted."""
        for name in _name_secrets(pipeline):
            self._secrets.pop((pipeline.namespace, name), None)

    async def evict_unused(self) -> None:
        """Close the clients that nobody asked for in a while, and forget old Secrets."""
        now_seconds = self._now()
        idle = [key for key, client in self._clients.items() if now_seconds - client.used_at_seconds > IDLE_SECONDS]
        await asyncio.gather(*(self._clients.pop(key).admin.close() for key in idle))
        self._secrets = {
            key: secret
            for key, secret in self._secrets.items()
            if now_seconds - secret.read_at_seconds <= SECRET_SECONDS
        }

    async def close(self) -> None:
        """Close all clients."""
        clients = [client.admin for client in self._clients.values()]
        self._clients.clear()
        await asyncio.gather(*(admin.close() for admin in clients))

    async def _connect(self, pipeline: Pipeline) -> KafkaConnection:
        kafka, namespace = pipeline.spec.kafka, pipeline.namespace
        credentials: dict[str, str] = {}
        if kafka.credentials_secret_ref is not None:
            name = kafka.credentials_secret_ref.name
            credentials = await self._read_secret(namespace, name, CREDENTIALS_KEYS, is_each_required=True)
        tls: dict[str, str] = {}
        if kafka.tls_secret_ref is not None:
            tls = await self._read_secret(namespace, kafka.tls_secret_ref.name, TLS_KEYS, is_each_required=False)
        return build_connection(pipeline, credentials=credentials, tls=tls)

    async def _read_secret(
        self, namespace: str, name: str, keys: Sequence[str], *, is_each_required: bool
    ) -> dict[str, str]:
        known = self._secrets.get((namespace, name))
        if known is None or self._now() - known.read_at_seconds > SECRET_SECONDS:
            known = _Secret(await self._fetch_secret(namespace, name), self._now())
            self._secrets[namespace, name] = known
        try:
            found = _decode(known.data, keys, namespace, name)
            _check_complete(found, keys if is_each_required else (), namespace, name)
        except SecretIncomplete:
            self._secrets.pop((namespace, name), None)
            raise
        return found

    async def _fetch_secret(self, namespace: str, name: str) -> dict[str, str]:
        try:
            return (await self._api.read("Secret", namespace, name)).get("data") or {}
        except ObjectMissing as error:
            advice = f"create it: kubectl -n {namespace} create secret generic {name} --from-literal=KEY=VALUE ..."
            raise SecretMissing(f"Secret {namespace}/{name} does not exist", advice=advice) from error
        except AccessForbidden as error:
            advice = _advise_binding(str(error), namespace, self._secret_reader)
            raise SecretForbidden(f"the operator may not read Secret {namespace}/{name}", advice=advice) from error


def name_cluster(pipeline: Pipeline) -> str:
    """Return what pipelines that share a connection have in common, without reading any Secret."""
    kafka = pipeline.spec.kafka
    parts = [*qualify_brokers(kafka.bootstrap_servers, pipeline.namespace), kafka.security_protocol]
    secrets = _name_secrets(pipeline)
    return " ".join([*parts, kafka.sasl_mechanism, pipeline.namespace, *secrets] if secrets else parts)


def qualify_brokers(brokers: list[str], namespace: str) -> list[str]:
    """Return brokers as they are reached from the operator's namespace.

    Pods resolve a bare `kafka:9092` in their own namespace by the search domain; from here it is
    `kafka.<namespace>.svc:9092`.
    """
    return [_qualify(broker, namespace) for broker in brokers]


def build_connection(pipeline: Pipeline, *, credentials: dict[str, str], tls: dict[str, str]) -> KafkaConnection:
    """Return the connection that the spec and its Secrets describe. Raise ConnectionInvalid naming the field."""
    kafka = pipeline.spec.kafka
    try:
        return KafkaConnection(
            brokers=qualify_brokers(kafka.bootstrap_servers, pipeline.namespace),
            username=credentials.get("username", ""),
            password=SecretStr(credentials.get("password", "")),
            security_protocol=kafka.security_protocol,
            sasl_mechanism=kafka.sasl_mechanism,
            tls=TLSSettings(
                ca_pem=tls.get("ca.crt"),
                cert_pem=tls.get("tls.crt"),
                key_pem=SecretStr(tls["tls.key"]) if tls.get("tls.key") else None,
            ),
        )
    except ValidationError as error:
        # Never the error's own text: it quotes its input.
        wrong = "; ".join(f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors())
        raise ConnectionInvalid(f"spec.kafka makes no connection: {wrong}", advice="correct spec.kafka") from None


def fingerprint_connection(connection: KafkaConnection) -> str:
    """Return a digest that two connections share exactly when they are the same."""
    tls = connection.tls
    parts = [
        *sorted(connection.brokers),
        connection.security_protocol,
        connection.sasl_mechanism,
        connection.username,
        connection.password.get_secret_value(),
        tls.ca_pem or "",
        tls.cert_pem or "",
        tls.key_pem.get_secret_value() if tls.key_pem else "",
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _qualify(broker: str, namespace: str) -> str:
    host, _, port = broker.rpartition(":")
    is_bare = "." not in host and host != "localhost" and not _is_address(host)
    return f"{host}.{namespace}.svc:{port}" if is_bare else broker


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _name_secrets(pipeline: Pipeline) -> list[str]:
    kafka = pipeline.spec.kafka
    return [ref.name for ref in (kafka.credentials_secret_ref, kafka.tls_secret_ref) if ref is not None]


def _decode(data: Mapping[str, str], keys: Sequence[str], namespace: str, name: str) -> dict[str, str]:
    """Return those of the keys that are there. Others may hold what is no text, such as a keystore: nobody asks."""
    found: dict[str, str] = {}
    for key in keys:
        try:
            found |= {key: base64.b64decode(data[key]).decode()} if data.get(key) else {}
        except (binascii.Error, UnicodeDecodeError) as error:
            advice = "write it with kubectl create secret generic"
            raise SecretIncomplete(f"Secret {namespace}/{name} holds no text in {key}", advice=advice) from error
    return found


def _check_complete(found: Mapping[str, str], keys: Sequence[str], namespace: str, name: str) -> None:
    missing = [key for key in keys if not found.get(key)]
    if missing:
        advice = f"add the key {' and the key '.join(missing)} to Secret {name} in namespace {namespace}"
        raise SecretIncomplete(f"Secret {namespace}/{name} has no {' and no '.join(missing)}", advice=advice)


def _advise_binding(refusal: str, namespace: str, role: str) -> str:
    """Return the command that lets the operator read Secrets there; the refusal names its service account."""
    found = SERVICE_ACCOUNT.search(refusal)
    account = f"{found[1]}:{found[2]}" if found else "NAMESPACE:SERVICEACCOUNT"
    return f"allow it: kubectl -n {namespace} create rolebinding {role} --clusterrole={role} --serviceaccount={account}"
