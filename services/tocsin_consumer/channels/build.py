"""From settings to channels."""

from __future__ import annotations

from tocsin_consumer.channels.base import Channel
from tocsin_consumer.channels.email import EmailChannel
from tocsin_consumer.channels.log import LogChannel
from tocsin_consumer.channels.transport import CurlTransport
from tocsin_consumer.channels.webhook import WebhookChannel, read_signer
from tocsin_consumer.channels.websocket import WebSocketChannel
from tocsin_consumer.hub import HubClient
from tocsin_core.errors import SettingsError
from tocsin_core.settings import ChannelSettings, Settings, WebhookSettings


def build_channels(settings: Settings) -> dict[str, Channel]:
    """Return the channels by name. Raise SettingsError if there are none, or a file one needs cannot be used."""
    channels = settings.consumer.channels
    if not channels:
        raise SettingsError("consumer.channels: name at least one, for example: [{name: log, type: Log}]")
    hub = None
    if settings.redis is not None and settings.has_streams:
        hub = HubClient(settings.redis, pipeline=settings.pipeline_key)  # one for all channels of the type
    return {channel.name: _build_channel(channel, hub) for channel in channels}


def _build_channel(settings: ChannelSettings, hub: HubClient | None) -> Channel:
    if settings.webhook is not None:
        return _build_webhook(settings.name, settings.webhook)
    if settings.email is not None:
        return EmailChannel(settings.name, settings.email)
    if settings.type == "WebSocket" and hub is not None:
        return WebSocketChannel(settings.name, hub)
    return LogChannel(settings.name)


def _build_webhook(name: str, settings: WebhookSettings) -> WebhookChannel:
    return WebhookChannel(
        name,
        settings.url,
        CurlTransport(timeout_seconds=settings.timeout_seconds),
        timeout_seconds=settings.timeout_seconds,
        signer=read_signer(name, settings.secret_file) if settings.secret_file else None,
    )
