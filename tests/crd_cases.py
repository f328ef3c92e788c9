"""One accepted and one refused object for every CEL rule of the CRD, as data.

Two suites read it: tests/unit evaluates the rules with cel-python, as `tocsin dev` does, and tests/e2e asks a real API
server. A case is what it changes in the smallest pipeline. `before` marks a transition rule: an object is created with
it, then updated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines import Changes

SECRET = {"name": "some-secret"}


class RuleCase(NamedTuple):
    """What breaks one rule, what keeps it, and words of the message that the refused object must be answered with."""

    name: str
    message: str
    accepted: Changes
    refused: Changes
    before: Changes | None = None


def _channel(**fields: Any) -> Changes:
    return {"spec.consumer.channels": [{"name": "one", **fields}]}


def _email(**fields: Any) -> Changes:
    return _channel(type="Email", email={"host": "smtp.example.org", "from": "a@example.org", **fields})


def _redis(**fields: Any) -> Changes:
    return {"spec.users": {"redis": {"url": "redis://valkey:6379", **fields}}}


def _http(url: str = "https://users.example.org/v1/{id}") -> Changes:
    return {"spec.users": {"http": {"url": url, "tokenSecretRef": SECRET}}}


TOPIC = "spec.kafka.topic."
AUTH = "spec.ingestion.auth."
JWT = {"issuer": "https://id.example.org", "audience": "orders", "jwksURL": "https://id.example.org/keys"}
SCREEN = {**_channel(type="WebSocket"), "spec.redis": {"url": "redis://valkey:6379/0"}}
SCALING = "spec.consumer.scaling."

CASES = (
    RuleCase(
        "the name leaves room for suffixes",
        "metadata.name must be at most 52 characters",
        {"metadata.name": "a" * 52},
        {"metadata.name": "a" * 53},
    ),
    RuleCase(
        "the name can name a Service",
        "metadata.name must start with a letter",
        {"metadata.name": "v1-orders"},
        {"metadata.name": "1.orders"},
    ),
    RuleCase(
        "dead letters go elsewhere",
        "must differ from kafka.topic.name: leave it out for <topic>.dlq",
        {"spec.delivery.deadLetterTopic": "orders.dead"},
        {"spec.delivery.deadLetterTopic": "orders"},
    ),
    RuleCase(
        "dead letters are not retried",
        "must not be one of the retry topics",
        {"spec.delivery.deadLetterTopic": "others.retry.10s"},
        {"spec.delivery.deadLetterTopic": "orders.retry.10s"},
    ),
    RuleCase(
        "the topic's name leaves room for those derived from it",
        "leaves no room for <topic>.retry.10m: shorten it to 239 characters",
        {TOPIC + "name": "t" * 239},
        {TOPIC + "name": "t" * 240},
    ),
    RuleCase(
        "strict order has a memory",
        "set redis.url, or delivery.ordering to Relaxed",
        {"spec.delivery.ordering": "Strict", "spec.redis.url": "redis://valkey:6379"},
        {"spec.delivery.ordering": "Strict"},
    ),
    RuleCase(
        "no idle consumers by minReplicas",
        "consumer.scaling.minReplicas must be at most kafka.topic.partitions",
        {TOPIC + "partitions": 3, SCALING + "minReplicas": 3},
        {TOPIC + "partitions": 3, SCALING + "minReplicas": 4},
    ),
    RuleCase(
        "WebSockets have a store",
        "a channel of type WebSocket needs `redis: {url: redis://host:6379/0}`",
        {**_channel(type="WebSocket"), "spec.redis": {"url": "redis://valkey:6379/0"}},
        _channel(type="WebSocket"),
    ),
    RuleCase(
        "API keys have their Secret",
        "name a Secret of what `tocsin keys create` prints",
        {AUTH + "mode": "APIKey", AUTH + "keysSecretRef": SECRET},
        {AUTH + "mode": "APIKey"},
    ),
    RuleCase(
        "tokens have their issuer",
        "write `jwt: {issuer, audience, jwksURL}`",
        {AUTH + "mode": "JWT", AUTH + "jwt": JWT},
        {AUTH + "jwt": JWT},
    ),
    RuleCase(
        "nobody is counted whom nobody knows",
        "set ingestion.auth.mode to APIKey or JWT",
        {AUTH + "mode": "JWT", AUTH + "jwt": JWT, AUTH + "rateLimit": {"notificationsPerSecond": 5}},
        {AUTH + "rateLimit": {"notificationsPerSecond": 5}},
    ),
    RuleCase(
        "a token is good from one issuer, for one audience",
        "ingestion.auth.jwt needs issuer, audience and jwksURL",
        {AUTH + "mode": "JWT", AUTH + "jwt": JWT},
        {AUTH + "mode": "JWT", AUTH + "jwt": {"audience": "orders", "jwksURL": "https://id.example.org/keys"}},
    ),
    RuleCase(
        "an issuer's keys have an address",
        "must be the issuer's jwks_uri",
        {AUTH + "mode": "JWT", AUTH + "jwt": JWT},
        {AUTH + "mode": "JWT", AUTH + "jwt": JWT | {"jwksURL": "https://me:password@id.example.org/keys"}},
    ),
    RuleCase(
        "an issuer's keys do not travel in clear text",
        "ingestion.auth.jwt.jwksURL must be https:// outside the cluster",
        {AUTH + "mode": "JWT", AUTH + "jwt": JWT | {"jwksURL": "http://keycloak.auth.svc:8080/certs"}},
        {AUTH + "mode": "JWT", AUTH + "jwt": JWT | {"jwksURL": "http://id.example.org/keys"}},
    ),
    RuleCase(
        "a scope is one word",
        "ingestion.auth.jwt.sendScope must be one scope",
        {AUTH + "mode": "JWT", AUTH + "jwt": JWT | {"sendScope": "api://orders/notifications:send"}},
        {AUTH + "mode": "JWT", AUTH + "jwt": JWT | {"sendScope": "a b"}},
    ),
    RuleCase(
        "who may listen may not therefore post",
        "ingestion.auth.jwt.sendScope is required with a channel of type WebSocket",
        {**SCREEN, AUTH + "mode": "JWT", AUTH + "jwt": JWT | {"sendScope": "send"}},
        {**SCREEN, AUTH + "mode": "JWT", AUTH + "jwt": JWT},
    ),
    RuleCase(
        "an origin is no address",
        "must hold origins such as https://app.example.org",
        {"spec.ingestion.stream": {"allowedOrigins": ["https://app.example.org", "http://localhost:3000", "*"]}},
        {"spec.ingestion.stream": {"allowedOrigins": ["https://app.example.org/"]}},
    ),
    RuleCase(
        "the group is immutable",
        "kafka.consumerGroup is immutable",
        {"spec.kafka.consumerGroup": "a"},
        {"spec.kafka.consumerGroup": "b"},
        before={"spec.kafka.consumerGroup": "a"},
    ),
    RuleCase(
        "SASL has credentials",
        "name a Secret with the keys username and password",
        {"spec.kafka.securityProtocol": "SASL_SSL", "spec.kafka.credentialsSecretRef": SECRET},
        {"spec.kafka.securityProtocol": "SASL_SSL"},
    ),
    RuleCase(
        "credentials have SASL",
        "set securityProtocol to SASL_SSL or SASL_PLAINTEXT",
        {"spec.kafka.securityProtocol": "SASL_PLAINTEXT", "spec.kafka.credentialsSecretRef": SECRET},
        {"spec.kafka.credentialsSecretRef": SECRET},
    ),
    RuleCase(
        "certificates have TLS",
        "set securityProtocol to SSL or SASL_SSL",
        {"spec.kafka.securityProtocol": "SSL", "spec.kafka.tlsSecretRef": SECRET},
        {"spec.kafka.tlsSecretRef": SECRET},
    ),
    RuleCase(
        "brokers are host and port",
        "must be host:port without a scheme",
        {"spec.kafka.bootstrapServers": ["kafka-0.kafka.svc:9092", "[2001:db8::1]:9092"]},
        {"spec.kafka.bootstrapServers": ["kafka://kafka:9092"]},
    ),
    RuleCase(
        "the topic is immutable",
        "kafka.topic.name is immutable",
        {TOPIC + "partitions": 12},
        {TOPIC + "name": "others"},
        before={},
    ),
    RuleCase(
        "only a managed topic is shaped",
        "remove them, or set kafka.topic.management to Managed",
        {TOPIC + "management": "External"},
        {TOPIC + "management": "External", TOPIC + "partitions": 3},
    ),
    RuleCase(
        "partitions only grow",
        "kafka.topic.partitions can only grow",
        {TOPIC + "partitions": 24},
        {TOPIC + "partitions": 6},
        before={},
    ),
    RuleCase(
        "the replication factor stays",
        "reassign partitions with Kafka's own tools",
        {TOPIC + "partitions": 12},
        {TOPIC + "replicationFactor": 3},
        before={TOPIC + "replicationFactor": 1},
    ),
    RuleCase(
        "records are kept for a number of milliseconds",
        "write milliseconds such as 604800000, or -1 for ever",
        {TOPIC + "config": {"retention.ms": "-1", "compression.type": "lz4"}},
        {TOPIC + "config": {"retention.ms": "7d"}},
    ),
    RuleCase(
        "the largest record is a number of bytes",
        "write a number of bytes such as 1048588",
        {TOPIC + "config": {"max.message.bytes": "2097152", "retention.ms": "604800000"}},
        {TOPIC + "config": {"max.message.bytes": "2MB"}},
    ),
    RuleCase(
        "the topic's name is one of Kafka's",
        "kafka.topic.name may hold only letters",
        {TOPIC + "name": "Orders_v1.new-ones"},
        {TOPIC + "name": "orders/new"},
    ),
    RuleCase(
        "users are known somewhere",
        "users needs one of configMapRef, redis and http",
        _redis(),
        {"spec.users": {}},
    ),
    RuleCase(
        "users are known in one place",
        "users may name one directory only",
        _http(),
        {"spec.users.http": {"url": "https://users.example.org/v1/{id}"}},
    ),
    RuleCase(
        "a ConfigMap needs no cache",
        "users.cache has no effect with configMapRef",
        {"spec.users": {"redis": {"url": "redis://valkey:6379"}, "cache": {"ttlSeconds": 5}}},
        {"spec.users.cache": {"ttlSeconds": 5}},
    ),
    RuleCase(
        "the users' store is Redis's",
        "users.redis.url must be an address such as redis://people:6379/0",
        _redis(url="rediss://valkey:6379/0", credentialsSecretRef=SECRET),
        _redis(url="http://valkey:6379"),
    ),
    RuleCase(
        "the address of the users' store is public",
        "name it in users.redis.credentialsSecretRef",
        _redis(),
        _redis(url="redis://:password@valkey:6379"),
    ),
    RuleCase(
        "a key names its user",
        "users.redis.keyPattern must hold {id}",
        _redis(keyPattern="{id}:profile"),
        _redis(keyPattern="profile:"),
    ),
    RuleCase(
        "an address names its user",
        "must be an http:// or https:// address with {id} after the host",
        _http("http://users?id={id}"),
        _http("https://{id}.example.org/"),
    ),
    RuleCase(
        "the address of users is public",
        "put a token in a Secret and name it in users.http.tokenSecretRef",
        _http("https://users.example.org/@{id}"),
        _http("https://me:password@users.example.org/{id}"),
    ),
    RuleCase(
        "the store's address is Redis's",
        "redis.url must look like redis://host:6379/0",
        {"spec.redis.url": "rediss://valkey:6379/0"},
        {"spec.redis.url": "http://valkey:6379"},
    ),
    RuleCase(
        "the store's address is public",
        "name it in redis.credentialsSecretRef",
        {"spec.redis.url": "redis://valkey:6379"},
        {"spec.redis.url": "redis://user:password@valkey:6379"},
    ),
    RuleCase(
        "replicas are in order",
        "consumer.scaling.minReplicas must be at most maxReplicas",
        {SCALING + "minReplicas": 2, SCALING + "maxReplicas": 2},
        {SCALING + "minReplicas": 3, SCALING + "maxReplicas": 2},
    ),
    RuleCase(
        "ingestion's replicas are in order",
        "ingestion.scaling.minReplicas must be at most maxReplicas",
        {"spec.ingestion.scaling.minReplicas": 2, "spec.ingestion.scaling.maxReplicas": 2},
        {"spec.ingestion.scaling.minReplicas": 11},
    ),
    RuleCase(
        "a promise is looked at in time",
        "consumer.scaling.intervalSeconds must be at most maxLagSeconds",
        {SCALING + "intervalSeconds": 2, SCALING + "maxLagSeconds": 2},
        {SCALING + "maxLagSeconds": 2},
    ),
    RuleCase(
        "a window holds an observation",
        "consumer.scaling.downWindowSeconds must be at least intervalSeconds",
        {SCALING + "intervalSeconds": 3, SCALING + "downWindowSeconds": 3},
        {SCALING + "intervalSeconds": 3, SCALING + "downWindowSeconds": 2},
    ),
    RuleCase(
        "a Webhook has its block",
        "a channel of type Webhook needs",
        _channel(type="Webhook", webhook={"url": "https://example.org/hook"}),
        _channel(type="Webhook"),
    ),
    RuleCase(
        "nothing else has a Webhook's block",
        "the block `webhook` belongs to a channel of type Webhook",
        _channel(type="Log"),
        _channel(type="Log", webhook={"url": "https://example.org/hook"}),
    ),
    RuleCase(
        "an Email has its block",
        "a channel of type Email needs",
        _email(),
        _channel(type="Email"),
    ),
    RuleCase(
        "nothing else has an Email's block",
        "the block `email` belongs to a channel of type Email",
        _channel(type="Log"),
        _channel(type="Log", email={"host": "smtp.example.org", "from": "a@example.org"}),
    ),
    RuleCase(
        "a channel's name is plain",
        "a channel's name may hold only lower-case letters",
        {"spec.consumer.channels.0.name": "log-2"},
        {"spec.consumer.channels.0.name": "Log"},
    ),
    RuleCase(
        "a webhook is HTTP",
        "webhook.url must be an http:// or https:// address",
        _channel(type="Webhook", webhook={"url": "http://receiver:8000/hook?a=b"}),
        _channel(type="Webhook", webhook={"url": "ftp://receiver/hook"}),
    ),
    RuleCase(
        "a webhook's address is ASCII",
        "write the host in punycode",
        _channel(type="Webhook", webhook={"url": "https://xn--exmple-cua.org/gr%C3%BC%C3%9Fe"}),
        _channel(type="Webhook", webhook={"url": "https://exämple.org/"}),
    ),
    RuleCase(
        "a webhook's address is public",
        "sign requests with webhook.secretRef instead",
        _channel(type="Webhook", webhook={"url": "https://example.org/@me", "secretRef": SECRET}),
        _channel(type="Webhook", webhook={"url": "https://me:password@example.org/"}),
    ),
    RuleCase(
        "no password in clear text",
        "set email.security to STARTTLS or TLS",
        _email(credentialsSecretRef=SECRET),
        _email(credentialsSecretRef=SECRET, security="None"),
    ),
    RuleCase(
        "an SMTP host is a host",
        "the port goes into email.port",
        _email(port=2525),
        _email(host="smtp.example.org:25"),
    ),
    RuleCase(
        "a sender is one address",
        "email.from must be one plain address",
        _email(),
        _email(**{"from": "Alerts <alerts@example.org>"}),
    ),
    RuleCase(
        "the dead-letter topic's name is one of Kafka's",
        "delivery.deadLetterTopic may hold only letters",
        {"spec.delivery.deadLetterTopic": "orders_dlq"},
        {"spec.delivery.deadLetterTopic": "orders dlq"},
    ),
)
