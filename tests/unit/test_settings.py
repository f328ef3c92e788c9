from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tocsin_core.errors import SettingsError
from tocsin_core.settings import Settings, load_settings

SMALLEST = {"kafka": {"brokers": ["kafka:9092"], "topic": "orders"}, "users": {"file": "/etc/tocsin/users/users.yaml"}}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOCSIN_CONFIG", "TOCSIN_KAFKA__USERNAME", "TOCSIN_KAFKA__PASSWORD", "TOCSIN_KAFKA__TOPIC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_config(**sections: Any) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**SMALLEST, **sections}), encoding="utf-8")
        return path

    return write_config


def explain(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_the_smallest_file_is_enough(write: Any) -> None:
    settings = load_settings(write())
    assert settings.kafka.brokers == ["kafka:9092"]
    assert settings.dead_letter_topic == "orders.dlq"
    assert settings.kafka.producer_return_successes


def test_the_well_known_shape_is_read(write: Any) -> None:
    kafka = {
        "brokers": "a:9092, b:9093",
        "username": "ada",
        "password": "pw",
        "topic": "orders",
        "retries": 3,
        "producer_return_successes": False,
    }
    settings = load_settings(write(kafka=kafka, log={"rotation_size": 20, "rotation_count": 3, "level": "debug"}))
    assert settings.kafka.brokers == ["a:9092", "b:9093"]
    assert (settings.kafka.retries, settings.kafka.producer_return_successes) == (3, False)
    assert (settings.log.rotation_size, settings.log.rotation_count, settings.log.level) == (20, 3, "debug")


def test_a_key_that_is_nearly_right_is_named_with_the_right_one(write: Any) -> None:
    text = explain(write(kafka={"brokers": ["k:1"], "topic": "t", "retrys": 1}))
    assert "kafka.retrys: unknown key; did you mean 'retries'?" in text


def test_a_key_that_resembles_nothing_is_answered_with_the_keys_there_are(write: Any) -> None:
    text = explain(write(log={"zzz": 1}))
    assert "log.zzz: unknown key; known here: level, file, rotation_size, rotation_count" in text


def test_an_unknown_section_is_named(write: Any) -> None:
    assert "kafak: unknown key; did you mean 'kafka'?" in explain(write(kafak={}))


def test_a_missing_key_is_named_with_its_environment_variable(write: Any) -> None:
    text = explain(write(kafka={"brokers": ["k:1"]}))
    assert "kafka.topic: required, and set neither in the file nor as TOCSIN_KAFKA__TOPIC" in text


def test_several_mistakes_are_told_at_once(write: Any) -> None:
    text = explain(write(kafka={"topic": "t", "retries": -1}, log={"level": "loud"}))
    assert "kafka.brokers: required" in text
    assert "kafka.retries" in text
    assert "log.level" in text
    assert "'loud'" in text


@pytest.mark.parametrize(
    ("kafka", "key"),
    [
        ({"brokers": ["kafka"]}, "kafka.brokers.0"),
        ({"brokers": []}, "kafka.brokers"),
        ({"topic": "ord ers"}, "kafka.topic"),
        ({"retries": "many"}, "kafka.retries"),
        ({"security_protocol": "TLS"}, "kafka.security_protocol"),
        ({"delivery_timeout_seconds": 0}, "kafka.delivery_timeout_seconds"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(write: Any, kafka: dict[str, Any], key: str) -> None:
    assert f"{key}: " in explain(write(kafka={"brokers": ["k:1"], "topic": "t", **kafka}))


def test_the_environment_overrides_one_key_and_leaves_its_neighbours(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOCSIN_KAFKA__TOPIC", "from-env")
    monkeypatch.setenv("TOCSIN_KAFKA__BROKERS", "a:1,b:2")
    monkeypatch.setenv("TOCSIN_LOG__LEVEL", "debug")
    settings = load_settings(write(kafka={"brokers": ["k:1"], "topic": "t", "retries": 4}))
    assert (settings.kafka.topic, settings.kafka.brokers, settings.kafka.retries) == ("from-env", ["a:1", "b:2"], 4)
    assert settings.log.level == "debug"


def test_a_missing_key_may_come_from_the_environment(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_KAFKA__TOPIC", "from-env")
    assert load_settings(write(kafka={"brokers": ["k:1"]})).kafka.topic == "from-env"


def test_sasl_without_a_user_says_which_variables_to_set(write: Any) -> None:
    text = explain(write(kafka={"brokers": ["k:1"], "topic": "t", "security_protocol": "SASL_SSL"}))
    assert "TOCSIN_KAFKA__USERNAME and TOCSIN_KAFKA__PASSWORD" in text


def test_no_secret_is_shown_by_repr_dump_or_error(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_KAFKA__PASSWORD", "hunter2")
    settings = load_settings(write(redis={"url": "redis://r:6379/0", "password": "hunter3"}))
    shown = f"{settings!r}{settings}{settings.model_dump_json()}"
    assert "hunter" not in shown
    monkeypatch.delenv("TOCSIN_KAFKA__PASSWORD")
    assert "hunter" not in explain(write(redis={"url": "redis//me:hunter6@r:6379"}))
    assert "hunter" not in explain(write(kafka=[{"password": "hunter7"}]))
    assert "hunter" not in explain(write(kafka={"brokers": ["k:1"], "topic": "t", "password": {"nested": "hunter4"}}))
    assert "hunter" not in explain(
        write(kafka={"brokers": ["k:1"], "topic": "t", "password": "hunter5", "security_protocol": "SASL_SSL"})
    )


def test_a_private_key_is_not_shown_when_it_is_wrong(write: Any) -> None:
    kafka = {"brokers": ["k:1"], "topic": "t", "tls": {"key_pem": ["-----BEGIN PRIVATE KEY-----"]}}
    assert "BEGIN PRIVATE KEY" not in explain(write(kafka=kafka))


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    text = explain(tmp_path / "nowhere.yaml")
    assert "no such file" in text
    assert "--config" in text


@pytest.mark.parametrize("text", ["kafka: [", "- just\n- a list\n", "plain words", "kafka: 3\n", "\x00"])
def test_a_file_that_is_not_a_configuration_is_a_settings_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    explain(path)


def test_a_file_that_is_not_utf8_is_a_settings_error(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"kafka: \xff\xfe")
    explain(path)


def test_the_environment_names_the_file(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_CONFIG", str(write(kafka={"brokers": ["k:1"], "topic": "named"})))
    assert load_settings().kafka.topic == "named"


@pytest.mark.parametrize(
    "channel",
    [
        {"name": "mail", "type": "Email"},
        {"name": "hook", "type": "Webhook", "email": {"host": "h", "from_address": "a@b"}},
        {"name": "log", "type": "Log", "webhook": {"url": "http://x"}},
    ],
)
def test_a_channel_has_exactly_the_block_of_its_type(write: Any, channel: dict[str, Any]) -> None:
    assert "set exactly the block that matches type" in explain(write(consumer={"channels": [channel]}))


@pytest.mark.parametrize("url", ["https://exämple.org/hook", "https://example.org/grüße", "https://example.org/\x7f"])
def test_a_webhooks_address_that_is_not_ascii_is_refused_with_the_way_to_write_it(write: Any, url: str) -> None:
    hook = {"name": "hook", "type": "Webhook", "webhook": {"url": url}}
    text = explain(write(consumer={"channels": [hook]}))
    assert "consumer.channels.0.webhook.url: must be ASCII: write the host in punycode (xn--...)" in text
    assert url not in text


def test_a_webhooks_address_in_punycode_is_taken(write: Any) -> None:
    url = "https://xn--exmple-cua.org/gr%C3%BC%C3%9Fe"
    [channel] = load_settings(
        write(consumer={"channels": [{"name": "hook", "type": "Webhook", "webhook": {"url": url}}]})
    ).consumer.channels
    assert channel.webhook is not None
    assert channel.webhook.url == url


def test_channel_names_are_unique(write: Any) -> None:
    twice = [{"name": "log", "type": "Log"}, {"name": "log", "type": "Log"}]
    assert "unique" in explain(write(consumer={"channels": twice}))


def test_settings_do_not_change(write: Any) -> None:
    settings = load_settings(write())
    with pytest.raises(ValueError, match="frozen"):
        settings.kafka.topic = "other"


def test_every_field_with_a_password_is_a_secret() -> None:
    shown = Settings.model_json_schema()

    def visit(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        mine = [path] if path.endswith(("/password", "/key_pem")) and "password" not in str(node) else []
        return mine + [found for key, value in node.items() for found in visit(value, f"{path}/{key}")]

    assert visit(shown, "") == []


def test_strict_order_without_redis_says_what_to_write(write: Any) -> None:
    text = explain(write(delivery={"ordering": "Strict"}))
    assert "delivery.ordering Strict requires redis: write redis.url, or Relaxed" in text
    strict = load_settings(write(delivery={"ordering": "Strict"}, redis={"url": "redis://valkey:6379"}))
    assert strict.delivery.ordering == "Strict"


def test_the_tiers_may_be_others_and_come_in_order(write: Any) -> None:
    settings = load_settings(write(delivery={"retry_delays_seconds": [60, 1]}))
    assert [tuple(tier) for tier in settings.retry_tiers] == [("orders.retry.1s", 1), ("orders.retry.1m", 60)]


@pytest.mark.parametrize("delays", [[], [0], [100_000], list(range(1, 10))])
def test_tiers_nobody_could_wait_for_are_refused(write: Any, delays: list[int]) -> None:
    assert "delivery.retry_delays_seconds" in explain(write(delivery={"retry_delays_seconds": delays}))


def test_a_websocket_channel_without_a_store_says_which_key_is_missing(write: Any) -> None:
    consumer = {"channels": [{"name": "screen", "type": "WebSocket"}]}
    assert "redis.url is required by a channel of type WebSocket" in explain(write(consumer=consumer))
    settings = load_settings(write(consumer=consumer, redis={"url": "redis://valkey:6379/0"}))
    assert settings.has_streams


@pytest.mark.parametrize(
    "users",
    [
        {},
        {"cache": {"ttl_seconds": 5}},
        {"file": "users.yaml", "http": {"url": "http://users/{id}"}},
        {"redis": {"url": "redis://valkey"}, "http": {"url": "http://users/{id}"}},
    ],
)
def test_there_is_exactly_one_user_directory(write: Any, users: dict[str, Any]) -> None:
    assert "set exactly one of users.file, users.redis and users.http" in explain(write(users=users))


@pytest.mark.parametrize(
    "url",
    [
        "http://users",
        "http://users/",
        "http://{id}/users",
        "http://users.{id}:80/a",
        "http://me:secret@users/{id}",
        "ftp://users/{id}",
        "http://users/#{id}",
        "http://users/{id} ",
    ],
)
def test_the_address_of_users_names_a_host_and_then_the_user(write: Any, url: str) -> None:
    text = explain(write(users={"http": {"url": url}}))
    assert text.split(": ")[1] == "users.http.url"
    assert "secret" not in text


@pytest.mark.parametrize(
    "url", ["https://users/v1/{id}", "http://users:80?id={id}", "http://[::1]:80/{id}/profile?a=b"]
)
def test_a_user_may_stand_in_the_path_or_the_query(write: Any, url: str) -> None:
    http = load_settings(write(users={"http": {"url": url}})).users.http
    assert http is not None
    assert http.url == url


def test_credentials_of_the_user_directory_come_from_the_environment_and_are_never_shown(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOCSIN_USERS__HTTP__TOKEN", "sesame\n")
    path = write(users={"http": {"url": "http://users/{id}"}})
    http = load_settings(path).users.http
    assert http is not None
    assert http.token.get_secret_value() == "sesame"
    assert "sesame" not in repr(http)
    monkeypatch.setenv("TOCSIN_USERS__HTTP__TOKEN", "open sesame")
    text = explain(path)
    assert "users.http.token: a bearer token is one word of ASCII" in text
    assert "sesame" not in text


def test_a_key_pattern_holds_the_id(write: Any) -> None:
    text = explain(write(users={"redis": {"url": "redis://valkey", "key_pattern": "user:"}}))
    assert "users.redis.key_pattern" in text
