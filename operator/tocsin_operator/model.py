"""A NotificationPipeline, parsed once.

Everything behind this module works on these frozen structs and never on a raw dict. The API server has already
validated and defaulted the object against the CRD, so the defaults here repeat the schema's only for objects that
did not pass through one (a unit test says what it needs and nothing else); a test keeps the two lists equal.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tocsin_core.errors import TocsinError
from tocsin_core.retry import build_tiers

GROUP = "tocsin.dev"
VERSION = "v1alpha1"
PLURAL = "notificationpipelines"
KIND = "NotificationPipeline"


class PipelineError(TocsinError):
    """An object that is not a pipeline of this version: the CRD in the cluster is older or newer than the operator."""


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The base of all parts of the spec: camelCase outside, snake_case inside."""


class SecretRef(Spec, frozen=True):
    """A Secret of the pipeline's namespace."""

    name: str


class TopicSpec(Spec, frozen=True):
    """The pipeline's topic. Unset partitions of a managed topic mean 12; an unset factor means the broker's default."""

    name: str
    management: Literal["Managed", "External"] = "Managed"
    partitions: int | None = None
    replication_factor: int | None = None
    config: dict[str, str] = {}


class KafkaSpec(Spec, frozen=True):
    """The Kafka cluster and how to speak to it."""

    bootstrap_servers: list[str]
    topic: TopicSpec
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    credentials_secret_ref: SecretRef | None = None
    tls_secret_ref: SecretRef | None = None
    consumer_group: str | None = None
    retries: int = 10
    producer_return_successes: bool = True


class RedisUsersSpec(Spec, frozen=True):
    """Profiles as strings of JSON in a store with the Redis protocol."""

    url: str
    key_pattern: str = "user:{id}"
    timeout_seconds: int = 2
    credentials_secret_ref: SecretRef | None = None


class HttpUsersSpec(Spec, frozen=True):
    """Profiles behind HTTP; the Secret's key is token."""

    url: str
    timeout_seconds: int = 2
    token_secret_ref: SecretRef | None = None


class UsersCacheSpec(Spec, frozen=True):
    """What a pod remembers of users it asked about."""

    entries: int = 50_000
    ttl_seconds: int = 60
    unknown_ttl_seconds: int = 5
    stale_seconds: int = 600


class UsersSpec(Spec, frozen=True):
    """Where recipients and their profiles are known: exactly one of ConfigMap, Redis and HTTP."""

    config_map_ref: SecretRef | None = None
    redis: RedisUsersSpec | None = None
    http: HttpUsersSpec | None = None
    cache: UsersCacheSpec | None = None


class RedisSpec(Spec, frozen=True):
    """The store for claims of sends and for who is connected where."""

    url: str
    credentials_secret_ref: SecretRef | None = None


class JWTSpec(Spec, frozen=True):
    """Whose tokens are good."""

    issuer: str
    audience: str
    jwks_url: str = msgspec.field(name="jwksURL")
    leeway_seconds: int = 30
    send_scope: str | None = None


class RateLimitSpec(Spec, frozen=True):
    """How much each caller may send through each pod."""

    notifications_per_second: int
    burst: int | None = None


class AuthSpec(Spec, frozen=True):
    """Who may post and listen, and how much."""

    mode: Literal["None", "APIKey", "JWT"] = "None"
    keys_secret_ref: SecretRef | None = None
    jwt: JWTSpec | None = None
    rate_limit: RateLimitSpec | None = None


class IngestionScalingSpec(Spec, frozen=True):
    """How ingestion is sized: by hand, or by requests per second."""

    mode: Literal["Auto", "Manual"] = "Manual"
    min_replicas: int = 1
    max_replicas: int = 10
    target_requests_per_second: int = 500


class StreamSpec(Spec, frozen=True):
    """The WebSockets of an ingestion pod, and which origins' pages may open them."""

    max_connections: int = 10_000
    max_connections_per_user: int = 16
    allowed_origins: list[str] = []


class IngestionSpec(Spec, frozen=True):
    """The HTTP side."""

    replicas: int = 2
    scaling: IngestionScalingSpec = IngestionScalingSpec()
    auth: AuthSpec = AuthSpec()
    stream: StreamSpec = StreamSpec()
    resources: dict[str, Any] = {}


class WebhookSpec(Spec, frozen=True):
    """An HTTP endpoint; the Secret's key `secret` holds the Standard Webhooks signing secret."""

    url: str
    secret_ref: SecretRef | None = None
    timeout_seconds: int = 10


class EmailSpec(Spec, frozen=True):
    """An SMTP server; the Secret's keys are username, password and, for a private CA, ca.crt."""

    host: str
    from_: str = msgspec.field(name="from")
    port: int = 587
    security: Literal["STARTTLS", "TLS", "None"] = "STARTTLS"
    credentials_secret_ref: SecretRef | None = None
    timeout_seconds: int = 30


class ChannelSpec(Spec, frozen=True):
    """One named way to a person."""

    name: str
    type: Literal["Log", "Email", "Webhook", "WebSocket"]
    concurrency: int | None = None
    webhook: WebhookSpec | None = None
    email: EmailSpec | None = None


class ConsumerScalingSpec(Spec, frozen=True):
    """How consumers are sized: one promise in seconds."""

    mode: Literal["Auto", "Advisory", "Manual", "ScaleUpOnly"] = "Auto"
    min_replicas: int = 1
    max_replicas: int = 12
    max_lag_seconds: int = 60
    interval_seconds: int = 5
    cooldown_seconds: int = 120
    down_window_seconds: int = 300
    capacity_per_second: int | None = None
    on_metrics_unavailable: Literal["Hold", "ScaleToMin", "ScaleToMax"] = "Hold"


class ConsumerSpec(Spec, frozen=True):
    """The delivering side."""

    channels: list[ChannelSpec]
    replicas: int = 1
    scaling: ConsumerScalingSpec = ConsumerScalingSpec()
    concurrency: int = 64
    resources: dict[str, Any] = {}


class DeliverySpec(Spec, frozen=True):
    """How long a notification is worth trying, and where it goes when it is not."""

    max_attempts: int = 5
    ordering: Literal["Relaxed", "Strict"] = "Relaxed"
    ttl_seconds: int = 86_400
    dead_letter_topic: str | None = None


class LoggingSpec(Spec, frozen=True):
    """How much is logged; rotation counts where a service logs to a file."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    rotation_size: int = 50
    rotation_count: int = 7


class PipelineSpec(Spec, frozen=True):
    """The whole spec."""

    kafka: KafkaSpec
    users: UsersSpec
    consumer: ConsumerSpec
    suspend: bool = False
    redis: RedisSpec | None = None
    ingestion: IngestionSpec = IngestionSpec()
    delivery: DeliverySpec = DeliverySpec()
    logging: LoggingSpec = LoggingSpec()


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """One NotificationPipeline: identity, generation, spec and the status last seen."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: PipelineSpec
    status: dict[str, Any] = {}
    resource_version: str = ""

    @property
    def key(self) -> str:
        """Return `namespace/name`, what queues and caches are keyed by."""
        return f"{self.namespace}/{self.name}"

    @property
    def consumer_group(self) -> str:
        """Return the consumer group: the one named, else `<namespace>.<name>`."""
        return self.spec.kafka.consumer_group or f"{self.namespace}.{self.name}"

    @property
    def has_streams(self) -> bool:
        """Whether people connect to ingestion: there is a channel of type WebSocket."""
        return any(channel.type == "WebSocket" for channel in self.spec.consumer.channels)

    @property
    def dead_letter_topic(self) -> str:
        """Return the dead-letter topic: the one named, else `<topic>.dlq`."""
        return self.spec.delivery.dead_letter_topic or f"{self.spec.kafka.topic.name}.dlq"

    @property
    def retry_topics(self) -> tuple[str, ...]:
        """Return the retry topics: `<topic>.retry.10s` and its siblings."""
        return tuple(tier.topic for tier in build_tiers(self.spec.kafka.topic.name))


def parse_pipeline(body: Any) -> Pipeline:
    """Return the pipeline in a Kubernetes object. Raise PipelineError naming the field that does not fit."""
    metadata = body.get("metadata", {})
    try:
        spec = msgspec.convert(body.get("spec", {}), PipelineSpec)
    except msgspec.ValidationError as error:
        raise PipelineError(f"spec does not fit {GROUP}/{VERSION}: {error}") from error
    return Pipeline(
        namespace=metadata.get("namespace", "default"),
        name=metadata.get("name", ""),
        uid=metadata.get("uid", ""),
        generation=int(metadata.get("generation", 0)),
        spec=spec,
        status=dict(body.get("status") or {}),
        resource_version=metadata.get("resourceVersion", ""),
    )
