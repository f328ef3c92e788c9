"""The channel `Webhook`: one HTTP POST per notification, signed as the Standard Webhooks specification says.

`webhook-id` is `<notification id>_<channel>`: the same for every attempt, so that a receiver which remembers ids sees
each notification once, and different for two channels that end at one receiver. The separator is not a dot, because
the specification joins id, timestamp and body with dots before signing.
Which answers are worth another try: 408, 425, 429 and 5xx, as the specification and every provider agree; and those
that speak of the way and not of the notification, redirects, 401 and 407. A rotated secret or a moved receiver is
somebody's mistake for an hour, and must not turn an hour's notifications into dead letters: the channel pauses.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path

import msgspec
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from tocsin_consumer.channels.base import ONE_DEVICE, Envelope, PermanentFailure, TemporaryFailure
from tocsin_consumer.channels.transport import TAKEN, Answer, Transport
from tocsin_core.codec import EVENT_TYPE
from tocsin_core.errors import SettingsError
from tocsin_core.message import Notification
from tocsin_core.users import Profile

RETRIABLE = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})

REFUSED = "the receiver refuses us, not this notification: compare the signing secrets, look at proxies between us"
UNWELCOME = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})
MOVED = "redirects are not followed, because the body is signed for one receiver: set webhook.url to the new address"

_encode = msgspec.json.Encoder().encode


class Recipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who it is for, as far as the directory knows."""

    id: str
    name: str | None = None
    email: str | None = None
    locale: str | None = None


class Data(Notification, frozen=True, kw_only=True):
    """The notification as a receiver gets it."""

    channel: str
    recipient: Recipient


class Event(msgspec.Struct, frozen=True):
    """The body that the Standard Webhooks specification proposes."""

    type: str
    timestamp: datetime
    data: Data


class WebhookChannel:
    """Posts notifications to one address."""

    repeats_are_harmless = False

    def __init__(
        self,
        name: str,
        url: str,
        transport: Transport,
        *,
        timeout_seconds: float,
        signer: Webhook | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self.timeout_seconds = timeout_seconds
        self._url = url
        self._transport = transport
        self._signer = signer
        self._now = now

    def devices(self, _: Profile) -> Sequence[str]:
        """Return the one nameless device."""
        return ONE_DEVICE

    async def send(self, envelope: Envelope) -> None:
        """Post the notification. Raise SendFailed unless the answer is 2xx."""
        now = self._now()
        body = build_body(envelope, channel=self.name, now=now)
        answer = await self._transport.post(self._url, body=body, headers=self._build_headers(envelope, body, now))
        check_answer(answer, now=now)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    def _build_headers(self, envelope: Envelope, body: bytes, now: datetime) -> dict[str, str]:
        message_id = f"{envelope.notification.id}_{self.name}"
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
        }
        if self._signer is not None:
            headers["webhook-signature"] = self._signer.sign(message_id, now, body.decode())
        return headers


def read_signer(channel: str, path: Path) -> Webhook:
    """Return the signer for the secret in a file. Raise SettingsError saying what is wrong, never showing it."""
    try:
        return Webhook(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise SettingsError(
            f"channel {channel!r}: webhook.secret_file {path} cannot be read ({error.strerror}); "
            "the Secret needs the key `secret`"
        ) from error
    except (EmptyWebhookSecretError, UnicodeDecodeError, binascii.Error) as error:
        raise SettingsError(
            f"channel {channel!r}: webhook.secret_file {path} holds no Standard Webhooks secret; write "
            "whsec_ and 24 to 64 random bytes in base64, for example: echo whsec_$(head -c 32 /dev/urandom | base64)"
        ) from error


def build_body(envelope: Envelope, *, channel: str, now: datetime) -> bytes:
    """Return the JSON body: type, timestamp, and in `data` the notification, its channel and who it is for."""
    notification, profile = envelope.notification, envelope.profile
    data = Data(
        id=notification.id,
        from_id=notification.from_id,
        to_id=notification.to_id,
        message=notification.message,
        title=notification.title,
        data=notification.data,
        channels=notification.channels,
        expires_at=notification.expires_at,
        channel=channel,
        recipient=Recipient(profile.id, profile.name, profile.email, profile.locale),
    )
    return _encode(Event(EVENT_TYPE, now, data))


def check_answer(answer: Answer, *, now: datetime) -> None:
    """Return if the answer says that the message was taken. Raise the failure that it says otherwise."""
    if answer.status in TAKEN:
        return
    if answer.status in RETRIABLE or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        retry_after_seconds = parse_retry_after(answer.retry_after, now=now)
        is_throttled = answer.status == HTTPStatus.TOO_MANY_REQUESTS or retry_after_seconds is not None
        raise TemporaryFailure(
            f"HTTP {answer.status}", retry_after_seconds=retry_after_seconds, is_throttled=is_throttled
        )
    if answer.status in UNWELCOME:
        raise TemporaryFailure(f"HTTP {answer.status}: {REFUSED}")
    if answer.status < HTTPStatus.BAD_REQUEST:
        raise TemporaryFailure(f"HTTP {answer.status}: {MOVED}")
    raise PermanentFailure(f"HTTP {answer.status}")


def parse_retry_after(text: str | None, *, now: datetime) -> float | None:
    """Return the seconds in a Retry-After header, given as seconds or as a date; None where it says nothing."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
