"""The configuration both services read: one `config.yaml`, overridden by `TOCSIN_*` environment variables.

The file keeps the field's well-known shape (`kafka: {brokers, username, password, topic, retries,
producer_return_successes}`, `log: {rotation_size, rotation_count, level}`) beside Tocsin's own sections. The operator
renders it into a ConfigMap; secrets never stand in it: they come from the environment
(`TOCSIN_KAFKA__USERNAME`, `TOCSIN_KAFKA__PASSWORD`, `TOCSIN_REDIS__PASSWORD`, `TOCSIN_USERS__HTTP__TOKEN`) or from
mounted files (`*_file`).
pydantic-settings does the merging; an own YAML-and-environment merger was refused: it is a well-kept library's job.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from tocsin_core.errors import SettingsError
from tocsin_core.retry import RETRY_DELAYS_SECONDS, Tier, build_tiers

ENV_PREFIX = "TOCSIN_"
ENV_CONFIG_PATH = "TOCSIN_CONFIG"
DEFAULT_CONFIG_PATH = Path("/etc/tocsin/config/config.yaml")
SECRET_KEYS = frozenset({"password", "key_pem", "token", "url"})


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _check_token(value: SecretStr) -> SecretStr:
    """Return a bearer token without what an editor left around it: a file behind a Secret often ends with a newline."""
    token = value.get_secret_value().strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("a bearer token is one word of ASCII: correct the key `token` of its Secret")
    return SecretStr(token)


def _check_ascii(url: str) -> str:
    """Return an address that libcurl takes: it would refuse any other at each request."""
    if not url.isascii() or not url.isprintable():
        raise ValueError("must be ASCII: write the host in punycode (xn--...) and percent-encode the rest")
    return url


HostPort = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:,]+):[0-9]{1,5}$", max_length=270)]
RetryDelay = Annotated[int, Field(ge=1, le=86_400)]
Brokers = Annotated[list[HostPort], NoDecode, BeforeValidator(_split_commas), Field(min_length=1, max_length=16)]


class Section(BaseModel):
    """A section of the file: unknown keys are mistakes, and say so."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TLSSettings(Section):
    """TLS to the brokers: files where a Secret is mounted, PEM text where it was read over the API."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    ca_pem: str | None = None
    cert_pem: str | None = None
    key_pem: SecretStr | None = None


class KafkaConnection(Section):
    """Where Kafka is and who we are to it: all that an admin client needs, and the part every client shares."""

    brokers: Brokers
    username: str = ""
    password: SecretStr = SecretStr("")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    tls: TLSSettings = TLSSettings()

    @model_validator(mode="after")
    def _sasl_needs_a_user(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.username and self.password.get_secret_value()):
            raise ValueError(
                f"username and password are required with security_protocol {self.security_protocol}: "
                "set TOCSIN_KAFKA__USERNAME and TOCSIN_KAFKA__PASSWORD",
            )
        return self


class KafkaSettings(KafkaConnection):
    """A service's Kafka: its topic and group, and how hard it tries."""

    topic: str = Field(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+$")
    retries: int = Field(default=10, ge=0, le=1_000_000)
    producer_return_successes: bool = True
    consumer_group: str = Field(default="tocsin", min_length=1, max_length=255)
    delivery_timeout_seconds: float = Field(default=10.0, gt=0, le=300)
    queue_max_messages: int = Field(default=20_000, ge=1, le=10_000_000)
    queue_max_kbytes: int = Field(default=32_768, ge=1, le=2_097_151)
    fetch_max_bytes: int = Field(default=16_777_216, ge=1_024, le=2_147_483_135)
    message_max_bytes: int = Field(default=1_048_576, ge=1_024, le=1_000_000_000)
    batch_max_bytes: int = Field(default=1_000_000, ge=1_024, le=1_000_000_000)
    session_timeout_seconds: float = Field(default=45.0, ge=1, le=3600)


class LogSettings(Section):
    """How much is logged, and where to. Without `file`, logs go to standard output and the node rotates them."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file: Path | None = None
    rotation_size: int = Field(default=50, ge=1, le=10_000, description="megabytes")
    rotation_count: int = Field(default=7, ge=0, le=1_000, description="old files kept")


class PipelineSettings(Section):
    """Whose pods these are: for logs, metrics and the CloudEvents source."""

    namespace: str = "default"
    name: str = "tocsin"


class RedisSettings(Section):
    """The store for claims of sends and for who is connected where: any server that speaks the Redis protocol."""

    url: str = Field(pattern=r"^rediss?://", max_length=2_048)
    username: str = ""
    password: SecretStr = SecretStr("")


class JWTSettings(Section):
    """Whose tokens are good, and where that issuer's public keys are."""

    issuer: str = Field(min_length=1, max_length=2_048)
    audience: str = Field(min_length=1, max_length=2_048)
    jwks_url: str = Field(pattern=r"^https?://[^\s/@]+/\S*$", max_length=2_048)
    leeway_seconds: int = Field(default=30, ge=0, le=300, description="how wrong clocks may be")
    send_scope: str = Field(default="", max_length=256, pattern=r"^[A-Za-z0-9:/._~+-]*$")


class RateLimitSettings(Section):
    """How much each caller may send, per pod."""

    notifications_per_second: int = Field(ge=1, le=1_000_000)
    burst: int | None = Field(default=None, ge=1, le=10_000_000, description="at once; None: a second's worth")


class AuthSettings(Section):
    """Who may post and listen. `None` is said aloud rather than assumed."""

    mode: Literal["None", "APIKey", "JWT"] = "None"
    keys_folder: Path | None = None
    jwt: JWTSettings | None = None
    rate_limit: RateLimitSettings | None = None

    @model_validator(mode="after")
    def _mode_has_what_it_needs(self) -> Self:
        for mode, key in (("APIKey", "keys_folder"), ("JWT", "jwt")):
            if (self.mode == mode) != (getattr(self, key) is not None):
                raise ValueError(f"{key} belongs to mode {mode}, and only to it")
        if self.mode == "None" and self.rate_limit is not None:
            raise ValueError("rate_limit counts by caller: set mode to APIKey or JWT, or remove it")
        return self


class StreamSettings(Section):
    """The WebSockets of a pod, and which pages may open them; a page of the Service's own host always may."""

    max_connections: int = Field(default=10_000, ge=1, le=1_000_000)
    max_connections_per_user: int = Field(default=16, ge=1, le=10_000)
    allowed_origins: list[str] = Field(default_factory=list, max_length=64)


class IngestionSettings(Section):
    """The HTTP side."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod listens on its own address
    port: int = Field(default=8080, ge=0, le=65_535)
    auth: AuthSettings = AuthSettings()
    max_in_flight: int = Field(default=10_000, ge=1, le=1_000_000, description="notifications waiting for Kafka")
    max_in_flight_bytes: int = Field(default=25_165_824, ge=1_024, le=2_147_483_647, description="and their bytes")
    max_bodies_bytes: int = Field(default=33_554_432, ge=4_194_304, le=2_147_483_647, description="being received")
    drain_seconds: float = Field(default=20.0, ge=0, le=3_600)
    stream: StreamSettings = StreamSettings()


class WebhookSettings(Section):
    """One HTTP endpoint, signed with the Standard Webhooks scheme when a secret is there."""

    url: Annotated[str, AfterValidator(_check_ascii)] = Field(pattern=r"^https?://\S+$", max_length=2_048)
    secret_file: Path | None = None
    timeout_seconds: float = Field(default=10.0, gt=0, le=120)


class EmailSettings(Section):
    """One SMTP server."""

    host: str = Field(min_length=1, max_length=253)
    port: int = Field(default=587, ge=1, le=65_535)
    from_address: str = Field(min_length=3, max_length=320, pattern=r"^[^\s@]+@[^\s@]+$")
    security: Literal["STARTTLS", "TLS", "None"] = "STARTTLS"
    username_file: Path | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=30.0, gt=0, le=300)


class ChannelSettings(Section):
    """One named way to a person. Exactly the block that matches `type` is set."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    type: Literal["Log", "Email", "Webhook", "WebSocket"]
    concurrency: int | None = Field(default=None, ge=1, le=10_000, description="its deliveries in flight per process")
    webhook: WebhookSettings | None = None
    email: EmailSettings | None = None

    @model_validator(mode="after")
    def _block_matches_type(self) -> Self:
        blocks = {"Webhook": self.webhook, "Email": self.email}
        for kind, block in blocks.items():
            if (block is not None) != (self.type == kind):
                raise ValueError(f"channel {self.name!r} of type {self.type}: set exactly the block that matches type")
        return self


class ConsumerSettings(Section):
    """The delivering side."""

    concurrency: int = Field(default=64, ge=1, le=10_000, description="deliveries in flight per process")
    channels: list[ChannelSettings] = Field(default_factory=list, max_length=16)
    drain_seconds: float = Field(default=30.0, ge=0, le=3_600)

    @property
    def channel_limits(self) -> dict[str, int]:
        """Return how many deliveries of each channel may be in flight."""
        return {each.name: min(each.concurrency or self.concurrency, self.concurrency) for each in self.channels}

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [channel.name for channel in self.channels]
        if len(set(names)) != len(names):
            raise ValueError("channel names must be unique")
        return self


class DeliverySettings(Section):
    """How long a notification is worth trying, and where it goes when it is not."""

    max_attempts: int = Field(default=5, ge=1, le=100)
    ordering: Literal["Relaxed", "Strict"] = "Relaxed"
    retry_delays_seconds: list[RetryDelay] = Field(default=list(RETRY_DELAYS_SECONDS), min_length=1, max_length=8)
    ttl_seconds: int = Field(default=86_400, ge=1, le=31_536_000)
    dead_letter_topic: str = Field(default="", max_length=249, pattern=r"^[a-zA-Z0-9._-]*$")


class HealthSettings(Section):
    """Where health and metrics are served, for kubelet and Prometheus only."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod listens on its own address
    port: int = Field(default=9090, ge=0, le=65_535)


class RedisUsersSettings(RedisSettings):
    """Profiles as JSON strings in a Redis: `key_pattern` with the user's id in the place of `{id}`."""

    key_pattern: str = Field(default="user:{id}", max_length=256, pattern=r"\{id\}")
    timeout_seconds: float = Field(default=2.0, gt=0, le=30)


class HTTPUsersSettings(Section):
    """Profiles as JSON behind an address with `{id}` after its host: 200 a profile, 404 no such user."""

    url: str = Field(pattern=r"^https?://[^\s/?#{}@]+[/?][^\s#]*\{id\}[^\s#]*$", max_length=2_048)
    token: Annotated[SecretStr, AfterValidator(_check_token)] = SecretStr("")
    timeout_seconds: float = Field(default=2.0, gt=0, le=30)
    max_connections: int = Field(default=32, ge=1, le=1_000)


class UsersCacheSettings(Section):
    """What a process remembers of users it asked about, and for how long."""

    entries: int = Field(default=50_000, ge=1, le=10_000_000)
    ttl_seconds: float = Field(default=60.0, gt=0, le=86_400)
    # Far below the two minutes that a consumer gives a recipient to appear: it has to ask again within them.
    unknown_ttl_seconds: float = Field(default=5.0, ge=0, le=60, description="of an answer that there is none")
    stale_seconds: float = Field(default=600.0, ge=0, le=604_800, description="past its ttl, while nobody answers")


class UsersSettings(Section):
    """Where recipients and their profiles are known: a mounted file, a Redis, or an HTTP service."""

    file: Path | None = None
    redis: RedisUsersSettings | None = None
    http: HTTPUsersSettings | None = None
    cache: UsersCacheSettings = UsersCacheSettings()

    @model_validator(mode="after")
    def _there_is_one_directory(self) -> Self:
        if sum(each is not None for each in (self.file, self.redis, self.http)) != 1:
            raise ValueError("set exactly one of users.file, users.redis and users.http")
        return self


class Settings(BaseSettings):
    """Everything a service needs to run."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    pipeline: PipelineSettings = PipelineSettings()
    kafka: KafkaSettings
    log: LogSettings = LogSettings()
    users: UsersSettings
    redis: RedisSettings | None = None
    ingestion: IngestionSettings = IngestionSettings()
    consumer: ConsumerSettings = ConsumerSettings()
    delivery: DeliverySettings = DeliverySettings()
    health: HealthSettings = HealthSettings()

    @model_validator(mode="after")
    def _websockets_need_redis(self) -> Self:
        if self.has_streams and self.redis is None:
            raise ValueError("redis.url is required by a channel of type WebSocket: consumers find connections there")
        return self

    @property
    def has_streams(self) -> bool:
        """Whether people may connect: there is a channel of type WebSocket."""
        return any(channel.type == "WebSocket" for channel in self.consumer.channels)

    @property
    def pipeline_key(self) -> str:
        """Return `namespace/name`, which separates pipelines that share a store."""
        return f"{self.pipeline.namespace}/{self.pipeline.name}"

    @property
    def dead_letter_topic(self) -> str:
        """Return the dead-letter topic: the one named, else `<topic>.dlq`."""
        return self.delivery.dead_letter_topic or f"{self.kafka.topic}.dlq"

    @property
    def retry_tiers(self) -> tuple[Tier, ...]:
        """Return the retry topics and their delays, the shortest first."""
        return build_tiers(self.kafka.topic, self.delivery.retry_delays_seconds)

    @model_validator(mode="after")
    def _strict_order_needs_a_memory(self) -> Self:
        if self.delivery.ordering == "Strict" and self.redis is None:
            raise ValueError("delivery.ordering Strict requires redis: write redis.url, or Relaxed")
        return self


def load_settings(path: Path | None = None) -> Settings:
    """Read `path` (else $TOCSIN_CONFIG, else /etc/tocsin/config/config.yaml), let the environment override it.

    Raise SettingsError naming the file, the key, what is wrong with it and, for an unknown key, the likely one.
    """
    source = path or Path(os.environ.get(ENV_CONFIG_PATH, DEFAULT_CONFIG_PATH))
    try:
        return _settings_class(source)()
    except FileNotFoundError as error:
        raise SettingsError(f"{source}: no such file; name one with --config or {ENV_CONFIG_PATH}") from error
    except ValidationError as error:
        raise SettingsError(f"{source}: {_explain(error)}") from error
    except (yaml.YAMLError, OSError, TypeError, ValueError) as error:
        raise SettingsError(f"{source}: not readable as YAML: {error}") from error


def load_kafka(*, flags: Mapping[str, Any], resource: Mapping[str, Any]) -> KafkaSettings:
    """Return the `kafka` section for a command that has no config.yaml.

    Its flags win over TOCSIN_KAFKA__*, which wins over what a resource says. Raise SettingsError naming the key.
    """

    class KafkaOnly(BaseSettings):
        model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="ignore")

        kafka: KafkaSettings

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            return (init_settings, env_settings, InitSettingsSource(settings_cls, {"kafka": dict(resource)}))

    try:
        return cast("Callable[..., KafkaOnly]", KafkaOnly)(kafka=dict(flags)).kafka
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def _settings_class(source: Path) -> Callable[[], Settings]:
    if not source.exists():
        raise FileNotFoundError(source)

    class FileSettings(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del init_settings, dotenv_settings, file_secret_settings  # the file and the environment, nothing else
            return (env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=source, yaml_file_encoding="utf-8"))

    return cast("Callable[[], Settings]", FileSettings)


def _explain(error: ValidationError) -> str:
    return "; ".join(_explain_one(cast("Mapping[str, Any]", item)) for item in error.errors())


def _explain_one(item: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(top level)"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key{_suggest(item['loc'])}"
    if item["type"] == "missing":
        variable = ENV_PREFIX + "__".join(str(part).upper() for part in item["loc"])
        return f"{key}: required, and set neither in the file nor as {variable}"
    return f"{key}: {item['msg'].removeprefix('Value error, ')}{_show(item)}"


def _show(item: Mapping[str, Any]) -> str:
    """Say what was got, unless it is, or may hold, a secret: whole sections may, and so may addresses."""
    is_secret = not SECRET_KEYS.isdisjoint(item["loc"])
    is_scalar = isinstance(item["input"], str | int | float | None)
    return f" (got {item['input']!r})" if is_scalar and not is_secret and item["type"] != "value_error" else ""


def _suggest(location: tuple[str | int, ...]) -> str:
    known: Any = Settings
    for part in location[:-1]:
        field = known.model_fields.get(part)
        annotation = field.annotation if field else None
        known = next((a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_model(a)), None)
        if known is None:
            return ""
    close = difflib.get_close_matches(str(location[-1]), known.model_fields, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known.model_fields)}"


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
