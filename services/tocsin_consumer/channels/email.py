"""The channel `Email`: one mail per notification, over SMTP.

The Message-ID is the notification's id, so a repeated mail can be recognised by mailboxes that care. The standard
library builds the MIME (encodings and folding are its job), aiosmtplib speaks the protocol. A few
connections are kept and reused: providers count connections, and greet slowly. A kept connection is asked with RSET
before it carries a mail, because servers hang up on idle clients and a mail must not be lost to finding that out; one
that rested for long is not asked, because a firewall may have forgotten it, and nobody would answer.
SMTP's own answer decides: to RCPT and DATA, which are about this mail, 4yz may pass later and 5yz will not. What the
server says before, to a greeting, a login or our sender, it would say to every mail, so the channel pauses until
somebody has mended it. 421 means nobody's mail passes now. Silence after DATA leaves the outcome unknown.
"""

from __future__ import annotations

import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email.errors import MessageError as MailError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path

import aiosmtplib

from tocsin_consumer.channels.base import ONE_DEVICE, Envelope, PermanentFailure, TemporaryFailure
from tocsin_core.errors import SettingsError
from tocsin_core.message import Notification
from tocsin_core.settings import EmailSettings
from tocsin_core.users import Profile

MAX_KEPT_CONNECTIONS = 16
MAX_REST_SECONDS = 60.0
RSET_SECONDS = 5.0
RSET_SHARE = 0.25
"""How long a kept connection may take to answer, and as a share of the time that the mail has: it is part of it."""
MAX_SUBJECT_CHARACTERS = 120
FIRST_PERMANENT_CODE = 500
FIRST_CODE = 200
"""Below it, aiosmtplib means what it could not understand."""
DOT_ATOM = re.compile(r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")


class EmailChannel:
    """Sends notifications as mails through one SMTP server."""

    repeats_are_harmless = False

    def __init__(self, name: str, settings: EmailSettings) -> None:
        self.name = name
        self.timeout_seconds = settings.timeout_seconds
        self._settings = settings
        self._tls = build_tls_context(name, settings)
        self._idle: deque[tuple[aiosmtplib.SMTP, float]] = deque()  # and since when
        read_credentials(name, settings)  # a wrong path is a mistake to be told at start, not at the first mail

    def devices(self, _: Profile) -> Sequence[str]:
        """Return the one nameless device."""
        return ONE_DEVICE

    async def send(self, envelope: Envelope) -> None:
        """Hand the mail to the server. Raise SendFailed without an address, or if the server does not take it."""
        mail = build_mail(envelope.notification, envelope.profile, from_address=self._settings.from_address)
        async with self._connection() as connection:
            try:
                await connection.send_message(mail)
            except aiosmtplib.SMTPException as error:
                raise translate(error, is_sending=True) from error

    async def close(self) -> None:
        """Say goodbye to the server on every kept connection."""
        while self._idle:
            connection, _ = self._idle.pop()
            await _hang_up(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiosmtplib.SMTP]:
        connection = await self._kept() or await self._connect()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append((connection, time.monotonic()))
        if len(self._idle) > MAX_KEPT_CONNECTIONS:
            surplus, _ = self._idle.popleft()
            surplus.close()  # without a QUIT: the mail was taken, and nothing may turn that into a failure any more

    async def _kept(self) -> aiosmtplib.SMTP | None:
        while self._idle:
            connection, since = self._idle.pop()
            if time.monotonic() - since > MAX_REST_SECONDS:
                connection.close()
            elif await self._is_alive(connection):
                return connection
        return None

    async def _is_alive(self, connection: aiosmtplib.SMTP) -> bool:
        """Ask a kept connection, and close it if it is of no use. Silence speaks for those that rested longer, too."""
        try:
            await connection.rset(timeout=min(RSET_SECONDS, self.timeout_seconds * RSET_SHARE))
        except (aiosmtplib.SMTPException, OSError) as error:
            connection.close()
            if isinstance(error, aiosmtplib.SMTPTimeoutError):
                self._forget_idle()
            return False
        except BaseException:
            connection.close()
            raise
        return True

    def _forget_idle(self) -> None:
        while self._idle:
            connection, _ = self._idle.pop()
            connection.close()

    async def _connect(self) -> aiosmtplib.SMTP:
        try:
            username, password = read_credentials(self.name, self._settings)
        except SettingsError as error:  # it was there at start: the channel waits until it is there again
            raise TemporaryFailure(str(error)) from error
        connection = aiosmtplib.SMTP(
            hostname=self._settings.host,
            port=self._settings.port,
            username=username,
            password=password,
            timeout=self.timeout_seconds,
            use_tls=self._settings.security == "TLS",
            start_tls=self._settings.security == "STARTTLS",
            tls_context=self._tls,
        )
        try:
            await connection.connect()
        except (aiosmtplib.SMTPException, OSError) as error:
            raise translate(error, is_sending=False) from error
        return connection


async def _hang_up(connection: aiosmtplib.SMTP) -> None:
    try:
        await connection.quit()
    except (aiosmtplib.SMTPException, OSError):
        connection.close()


def build_mail(notification: Notification, profile: Profile, *, from_address: str) -> EmailMessage:
    """Return the mail for a notification. Raise PermanentFailure if the profile has no usable address."""
    if not profile.email:
        raise PermanentFailure(f"user {profile.id!r} has no email in its profile", reason="no_address")
    mail = EmailMessage()
    try:
        mail["To"] = Address(display_name=_to_header(profile.name or ""), addr_spec=profile.email)
    except (MailError, ValueError, IndexError) as error:
        raise PermanentFailure(
            f"the email in the profile of user {profile.id!r} is no address", reason="no_address"
        ) from error
    mail["From"] = from_address
    mail["Subject"] = _to_header(notification.title or notification.message)[:MAX_SUBJECT_CHARACTERS]
    mail["Date"] = formatdate(usegmt=True)
    mail["Message-ID"] = build_message_id(notification.id, from_address)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(notification.message)
    return mail


def build_message_id(notification_id: str, from_address: str) -> str:
    """Return `<id@domain of the sender>`; an id that is no dot-atom, which only foreign producers write, is hashed."""
    local = notification_id if DOT_ATOM.match(notification_id) else sha256(notification_id.encode()).hexdigest()
    return f"<{local}@{from_address.rpartition('@')[2]}>"


def translate(error: Exception, *, is_sending: bool) -> TemporaryFailure | PermanentFailure:
    """Return what an SMTP or socket error means. The server's own words are kept, without the addresses it names."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    if isinstance(
        error, aiosmtplib.SMTPAuthenticationError
    ):  # our mistake, not this mail's: others must not pay for it
        return TemporaryFailure(f"the server refused our credentials ({error.code}): correct username and password")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        text = f"SMTP {error.code} {_without_addresses(error.message)}"
        if isinstance(error, aiosmtplib.SMTPSenderRefused):
            text = f"the server refuses our sender ({text}): correct email.from"
        # 421 closes the whole service; another answer to RCPT or DATA is about this mail (greylisting, a full mailbox).
        is_throttled = error.code == aiosmtplib.SMTPStatus.domain_unavailable
        is_of_mail = isinstance(error, aiosmtplib.SMTPRecipientRefused | aiosmtplib.SMTPDataError)
        if is_of_mail and error.code >= FIRST_PERMANENT_CODE:
            return PermanentFailure(text)
        return TemporaryFailure(
            text,
            is_of_channel=is_throttled or not is_of_mail,
            is_throttled=is_throttled,
            is_uncertain=is_sending and error.code < FIRST_CODE,
        )
    if isinstance(error, aiosmtplib.SMTPNotSupported):
        return PermanentFailure(str(error)) if is_sending else TemporaryFailure(str(error))
    return TemporaryFailure(f"{type(error).__name__}: {_without_addresses(str(error))}", is_uncertain=is_sending)


def build_tls_context(channel: str, settings: EmailSettings) -> ssl.SSLContext | None:
    """Return the TLS context, trusting ca_file if there is one. Raise SettingsError if it cannot be used."""
    if settings.security == "None":
        return None
    try:
        # The Secret's ca.crt is for servers with a CA of their own; without it, the system's CAs count.
        is_private = settings.ca_file is not None and settings.ca_file.exists()
        return ssl.create_default_context(cafile=settings.ca_file if is_private else None)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"channel {channel!r}: email.ca_file {settings.ca_file} is not usable: {error}") from error


def read_credentials(channel: str, settings: EmailSettings) -> tuple[str | None, str | None]:
    """Return username and password from their files, read anew for each connection so that a rotation needs no restart.

    Raise SettingsError naming the file that cannot be read.
    """
    return _read(channel, "username_file", settings.username_file), _read(
        channel, "password_file", settings.password_file
    )


def _read(channel: str, key: str, path: Path | None) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() if path else None
    except OSError as error:
        raise SettingsError(f"channel {channel!r}: email.{key} {path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"channel {channel!r}: email.{key} {path} is not UTF-8") from error


def _to_header(text: str) -> str:
    """Return a text on one line that is taken for nothing but text.

    The standard library decodes RFC 2047's encoded words in a header that is set, line ends and all: the beginning of
    one is broken up.
    """
    return " ".join(text.split()).replace("=?", "= ?")


def _without_addresses(text: str) -> str:
    return re.sub(r"[^\s<>@]+@[^\s<>@]+", "(address)", text)
