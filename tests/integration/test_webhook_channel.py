"""The Webhook channel against a real HTTP server, its signature against the Standard Webhooks library."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from envelopes import make_envelope
from receiver import Answer, Receiver
from tocsin_consumer.channels.base import PermanentFailure, SendFailed, TemporaryFailure
from tocsin_consumer.channels.build import build_channels
from tocsin_consumer.channels.webhook import WebhookChannel
from tocsin_core.errors import SettingsError
from tocsin_core.settings import (
    ChannelSettings,
    ConsumerSettings,
    KafkaSettings,
    Settings,
    UsersSettings,
    WebhookSettings,
)

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ...").decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n", encoding="ascii")
    return path


def build(url: str, *, secret_file: Path | None = None, timeout_seconds: float = 5.0) -> WebhookChannel:
    webhook = WebhookSettings(url=url, secret_file=secret_file, timeout_seconds=timeout_seconds)
    consumer = ConsumerSettings(channels=[ChannelSettings(name="hook", type="Webhook", webhook=webhook)])
    kafka, users = KafkaSettings(brokers=["kafka:9092"], topic="t"), UsersSettings(file=Path("users.yaml"))
    channel = build_channels(Settings(kafka=kafka, users=users, consumer=consumer))["hook"]
    assert isinstance(channel, WebhookChannel)
    return channel


@pytest.fixture
async def channel(receiver: Receiver, secret_file: Path) -> AsyncIterator[WebhookChannel]:
    channel = build(receiver.url, secret_file=secret_file)
    yield channel
    await channel.close()


async def failure_of(channel: WebhookChannel) -> SendFailed:
    with pytest.raises(SendFailed) as caught:
        await channel.send(make_envelope())
    return caught.value


async def test_the_receiver_can_verify_the_signature(receiver: Receiver, channel: WebhookChannel) -> None:
    await channel.send(make_envelope(message="grüße 🚨"))
    [delivery] = await receiver.wait_for(1)
    assert Webhook(SECRET).verify(delivery.body, delivery.headers)["data"]["message"] == "grüße 🚨"


async def test_another_secret_does_not_verify(receiver: Receiver, channel: WebhookChannel) -> None:
    await channel.send(make_envelope())
    [delivery] = await receiver.wait_for(1)
    other = "whsec_" + base64.b64encode(b"another secret").decode()
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(delivery.body, delivery.headers)


async def test_the_body_carries_the_notification_and_its_recipient(receiver: Receiver, channel: WebhookChannel) -> None:
    await channel.send(make_envelope(title="News", data={"order": 7}))
    [delivery] = await receiver.wait_for(1)
    assert delivery.data == {
        "id": "0197a3c0-0000-7000-8000-000000000001",
        "fromID": "1",
        "toID": "2",
        "message": "hi",
        "title": "News",
        "data": {"order": 7},
        "channel": "hook",
        "recipient": {"id": "2", "name": "Ada Lovelace", "email": "ada@example.org", "locale": "en"},
    }


async def test_the_webhook_id_is_the_same_for_every_attempt(receiver: Receiver, channel: WebhookChannel) -> None:
    await channel.send(make_envelope())
    await channel.send(make_envelope())
    deliveries = await receiver.wait_for(2)
    assert {each.headers["webhook-id"] for each in deliveries} == {"0197a3c0-0000-7000-8000-000000000001_hook"}


async def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    channel = build(receiver.url)
    await channel.send(make_envelope())
    [delivery] = await receiver.wait_for(1)
    assert "webhook-signature" not in delivery.headers
    assert "webhook-id" in delivery.headers
    await channel.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_every_2xx_means_taken(receiver: Receiver, channel: WebhookChannel, status: int) -> None:
    receiver.answer = Answer(status)
    await channel.send(make_envelope())


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_trouble_that_may_pass_is_temporary(receiver: Receiver, channel: WebhookChannel, status: int) -> None:
    receiver.answer = Answer(status)
    failure = await failure_of(channel)
    assert isinstance(failure, TemporaryFailure)
    assert str(failure) == f"HTTP {status}"
    assert not failure.is_uncertain


@pytest.mark.parametrize("status", [400, 403, 404, 410, 413])
async def test_other_answers_are_permanent(receiver: Receiver, channel: WebhookChannel, status: int) -> None:
    receiver.answer = Answer(status)
    assert isinstance(await failure_of(channel), PermanentFailure)
    assert receiver.deliveries == []


@pytest.mark.parametrize(
    ("status", "advice"), [(301, "set webhook.url"), (307, "set webhook.url"), (401, "secrets"), (407, "secrets")]
)
async def test_answers_about_the_way_concern_the_channel_and_redirects_are_not_followed(
    receiver: Receiver, channel: WebhookChannel, status: int, advice: str
) -> None:
    receiver.answer = Answer(status, {"location": receiver.url})
    failure = await failure_of(channel)
    assert isinstance(failure, TemporaryFailure)
    assert failure.is_of_channel
    assert advice in str(failure)
    assert receiver.deliveries == []


async def test_retry_after_in_seconds_is_passed_on(receiver: Receiver, channel: WebhookChannel) -> None:
    receiver.answer = Answer(429, {"retry-after": "17"})
    assert (await failure_of(channel)).retry_after_seconds == 17.0


async def test_retry_after_as_a_date_is_passed_on(receiver: Receiver, channel: WebhookChannel) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=30)
    receiver.answer = Answer(503, {"retry-after": format_datetime(moment, usegmt=True)})
    assert (await failure_of(channel)).retry_after_seconds == pytest.approx(30, abs=3)


@pytest.mark.parametrize("text", ["soon", "-5", "", "²", "Fri, 31 Dec 99999999999 23:59:59 GMT"])
async def test_a_retry_after_that_says_nothing_is_ignored(
    receiver: Receiver, channel: WebhookChannel, text: str
) -> None:
    receiver.answer = Answer(503, {"retry-after": text.encode().decode("latin-1")})
    assert (await failure_of(channel)).retry_after_seconds is None


async def test_a_huge_answer_is_not_read(receiver: Receiver, channel: WebhookChannel) -> None:
    receiver.answer = Answer(200, body=b"x" * 4_000_000)
    async with asyncio.timeout(5):
        await channel.send(make_envelope())


async def test_silence_is_temporary_and_uncertain(receiver: Receiver) -> None:
    receiver.answer = Answer(delay_seconds=2.0)
    channel = build(receiver.url, timeout_seconds=0.2)
    failure = await failure_of(channel)
    assert isinstance(failure, TemporaryFailure)
    assert failure.is_uncertain
    await channel.close()


async def test_a_connection_cut_in_place_of_an_answer_is_temporary_and_uncertain() -> None:
    async def take_and_cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with await asyncio.start_server(take_and_cut, "127.0.0.1", 0) as server:
        channel = build(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook")
        failure = await failure_of(channel)
        await channel.close()
    assert isinstance(failure, TemporaryFailure)
    assert failure.is_uncertain


async def test_a_refused_connection_is_temporary_and_certain_and_keeps_the_address_to_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    channel = build(f"http://127.0.0.1:{port}/hook?token=hidden")
    failure = await failure_of(channel)
    assert isinstance(failure, TemporaryFailure)
    assert not failure.is_uncertain
    assert "refused" in str(failure)
    assert "hidden" not in str(failure)
    await channel.close()


@pytest.mark.parametrize("content", ["", "whsec_", "pass-wörd", "x"])
def test_a_file_without_a_usable_secret_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match="holds no Standard Webhooks secret"):
        build("http://127.0.0.1:1/", secret_file=path)


def test_a_refused_secret_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("pass-wörd", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        build("http://127.0.0.1:1/", secret_file=path)
    assert "wörd" not in str(caught.value)


def test_a_missing_secret_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"channel 'hook': webhook.secret_file .* cannot be read"):
        build("http://127.0.0.1:1/", secret_file=tmp_path / "nothing")
