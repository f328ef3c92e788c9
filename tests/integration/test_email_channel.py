"""The Email channel against a real SMTP server on a socket."""

from __future__ import annotations

import asyncio
import email.policy
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from envelopes import make_envelope
from tocsin_consumer.channels.base import PermanentFailure, SendFailed, TemporaryFailure
from tocsin_consumer.channels.email import EmailChannel
from tocsin_core.errors import SettingsError
from tocsin_core.settings import EmailSettings
from tocsin_core.users import Profile


class Mailbox:
    """Keeps what arrives, and answers each command as it is told."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.connections: set[Any] = set()
        self.mail_answer = "250 OK"
        self.rcpt_answer = "250 OK"
        self.data_answer = "250 OK"
        self.rsets = 0
        self.answers_rset = True

    async def handle_RSET(  # noqa: N802 - the server's name for it
        self, _server: SMTP, _session: Session, _envelope: Envelope
    ) -> str:
        self.rsets += 1
        if not self.answers_rset:
            await asyncio.Event().wait()
        return "250 OK"

    async def handle_MAIL(  # noqa: N802 - same
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if self.mail_answer.startswith("250"):
            envelope.mail_from = address
        return self.mail_answer

    async def handle_RCPT(  # noqa: N802 - same
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        self.connections.add(session.peer)
        if self.rcpt_answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt_answer

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - same
        if self.data_answer.startswith("250"):
            content = envelope.content if isinstance(envelope.content, bytes) else b""
            mail = email.message_from_bytes(content, policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
            self.recipients += envelope.rcpt_tos
        return self.data_answer


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


Serve = Callable[..., Awaitable[int]]


@pytest.fixture
async def serve(mailbox: Mailbox) -> AsyncIterator[Serve]:
    """Start SMTP servers; each call returns the port of one."""
    servers: list[asyncio.Server] = []

    async def start(*, ssl_context: ssl.SSLContext | None = None, **options: Any) -> int:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(mailbox, loop=loop, **options), "127.0.0.1", 0, ssl=ssl_context)
        servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()


def build(port: int, **options: Any) -> EmailChannel:
    fields = {"host": "127.0.0.1", "port": port, "from_address": "alerts@tocsin.example", "security": "None"}
    return EmailChannel("mail", EmailSettings.model_validate(fields | {"timeout_seconds": 5.0} | options))


@pytest.fixture
async def channel(serve: Serve) -> AsyncIterator[EmailChannel]:
    channel = build(await serve())
    yield channel
    await channel.close()


async def failure_of(channel: EmailChannel, **profile: Any) -> SendFailed:
    with pytest.raises(SendFailed) as caught:
        await channel.send(make_envelope(Profile(**{"id": "2", "email": "ada@example.org"} | profile)))
    return caught.value


async def test_a_notification_arrives_as_a_mail(channel: EmailChannel, mailbox: Mailbox) -> None:
    await channel.send(make_envelope(title="Your order", message="It is on its way.\nGrüße 🚨"))
    [mail] = mailbox.mails
    assert mailbox.recipients == ["ada@example.org"]
    assert mail["Subject"] == "Your order"
    assert mail["From"] == "alerts@tocsin.example"
    assert mail["To"] == "Ada Lovelace <ada@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content().strip().replace("\r\n", "\n") == "It is on its way.\nGrüße 🚨"


async def test_the_message_id_is_the_notification_id(channel: EmailChannel, mailbox: Mailbox) -> None:
    await channel.send(make_envelope())
    assert mailbox.mails[0]["Message-ID"] == "<0197a3c0-0000-7000-8000-000000000001@tocsin.example>"


async def test_an_id_that_would_break_the_header_is_hashed(channel: EmailChannel, mailbox: Mailbox) -> None:
    await channel.send(make_envelope(id="a b>\r\nBcc: eve@example.org"))
    assert mailbox.mails[0]["Message-ID"].endswith("@tocsin.example>")
    assert mailbox.mails[0]["Bcc"] is None


async def test_without_a_title_the_subject_is_the_start_of_the_message_on_one_line(
    channel: EmailChannel, mailbox: Mailbox
) -> None:
    await channel.send(make_envelope(message="first line\r\nBcc: eve@example.org " + "x" * 500))
    assert mailbox.mails[0]["Subject"].startswith("first line Bcc: eve@example.org x")
    assert len(mailbox.mails[0]["Subject"]) == 120
    assert mailbox.recipients == ["ada@example.org"]


HEADERS_WITHIN_A_TITLE = "=?utf-8?q?Hi=0D=0AReply-To:_eve@example.org=0D=0A=0D=0AClick_here?="


async def test_text_that_looks_like_an_encoded_header_is_only_text(channel: EmailChannel, mailbox: Mailbox) -> None:
    profile = Profile(id="2", email="ada@example.org", name=HEADERS_WITHIN_A_TITLE)
    await channel.send(make_envelope(profile, title=HEADERS_WITHIN_A_TITLE, message="the text"))
    [mail] = mailbox.mails
    literal = HEADERS_WITHIN_A_TITLE.replace("=?", "= ?")
    assert mail["Subject"] == literal
    assert mail["To"].addresses[0].display_name == literal
    assert mail["Reply-To"] is None
    assert mail.get_content().strip() == "the text"


async def test_a_user_without_an_address_is_a_permanent_failure_that_says_so(channel: EmailChannel) -> None:
    failure = await failure_of(channel, email=None)
    assert isinstance(failure, PermanentFailure)
    assert failure.reason == "no_address"


@pytest.mark.parametrize("address", ["ada", "a@b, c@d", "ada@example.org\r\nBcc: eve@example.org", "<>", " ", "@"])
async def test_an_address_that_is_none_is_never_sent_to(channel: EmailChannel, mailbox: Mailbox, address: str) -> None:
    failure = await failure_of(channel, email=address)
    assert isinstance(failure, PermanentFailure)
    assert failure.reason == "no_address"
    assert mailbox.recipients == []


async def test_a_4yz_answer_is_temporary(channel: EmailChannel, mailbox: Mailbox) -> None:
    mailbox.rcpt_answer = "451 greylisted, try ada@example.org later"
    failure = await failure_of(channel)
    assert isinstance(failure, TemporaryFailure)
    assert str(failure) == "SMTP 451 greylisted, try (address) later"
    assert not failure.is_uncertain


async def test_a_5yz_answer_is_permanent(channel: EmailChannel, mailbox: Mailbox) -> None:
    mailbox.rcpt_answer = "550 no such user"
    assert isinstance(await failure_of(channel), PermanentFailure)


async def test_a_5yz_answer_to_the_content_is_permanent(channel: EmailChannel, mailbox: Mailbox) -> None:
    mailbox.data_answer = "554 looks like spam"
    assert isinstance(await failure_of(channel), PermanentFailure)


async def test_a_sender_that_the_server_refuses_is_the_channels_trouble(
    channel: EmailChannel, mailbox: Mailbox
) -> None:
    mailbox.mail_answer = "550 alerts@tocsin.example may not send from here"
    failure = await failure_of(channel)
    assert isinstance(failure, TemporaryFailure)
    assert failure.is_of_channel
    assert (
        str(failure) == "the server refuses our sender (SMTP 550 (address) may not send from here): correct email.from"
    )


async def test_a_greeting_that_refuses_everybody_is_the_channels_trouble() -> None:
    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 no SMTP service here\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        failure = await failure_of(build(server.sockets[0].getsockname()[1]))
    assert isinstance(failure, TemporaryFailure)
    assert failure.is_of_channel
    assert not failure.is_uncertain


async def test_a_connection_is_kept_for_the_next_mail(channel: EmailChannel, mailbox: Mailbox) -> None:
    for _ in range(3):
        await channel.send(make_envelope())
    assert len(mailbox.mails) == 3
    assert len(mailbox.connections) == 1


async def test_a_connection_that_the_server_closed_is_replaced(serve: Serve, mailbox: Mailbox) -> None:
    channel = build(await serve())
    await channel.send(make_envelope())
    channel._idle[0][0].close()
    await channel.send(make_envelope())
    assert len(mailbox.mails) == 2
    await channel.close()


async def test_a_connection_that_rested_for_long_is_not_asked(
    channel: EmailChannel, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin_consumer.channels.email.MAX_REST_SECONDS", -1.0)
    for _ in range(2):
        await channel.send(make_envelope())
    assert len(mailbox.connections) == len(mailbox.mails) == 2


@pytest.mark.parametrize(("timeout_seconds", "rset_seconds"), [(30.0, 5.0), (4.0, 1.0)])
async def test_asking_a_kept_connection_leaves_the_mail_most_of_its_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, timeout_seconds: float, rset_seconds: float
) -> None:
    waited: list[object] = []

    async def note(_: aiosmtplib.SMTP, **options: object) -> None:
        waited.append(options.get("timeout"))

    channel = build(await serve(), timeout_seconds=timeout_seconds)
    await channel.send(make_envelope())
    monkeypatch.setattr("aiosmtplib.SMTP.rset", note)
    await channel.send(make_envelope())
    assert waited == [rset_seconds]
    await channel.close()


async def test_a_kept_connection_that_is_silent_is_replaced_and_so_are_those_that_rested_longer(
    channel: EmailChannel, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin_consumer.channels.email.RSET_SECONDS", 0.05)
    await asyncio.gather(*(channel.send(make_envelope()) for _ in range(4)))
    kept = [connection for connection, _ in channel._idle]
    assert len(kept) == 4
    mailbox.answers_rset = False
    await channel.send(make_envelope())
    assert len(mailbox.mails) == 5
    assert mailbox.rsets == 1
    assert len(channel._idle) == 1
    assert not any(connection.is_connected for connection in kept)


async def test_a_surplus_connection_costs_the_last_mail_nothing(
    channel: EmailChannel, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("tocsin_consumer.channels.email.MAX_KEPT_CONNECTIONS", 1)
    monkeypatch.setattr("aiosmtplib.SMTP.quit", hang)
    await asyncio.wait_for(asyncio.gather(*(channel.send(make_envelope()) for _ in range(4))), 30)
    assert len(mailbox.mails) == 4
    assert len(channel._idle) == 1
    channel._idle.pop()[0].close()


async def test_a_kept_connection_is_closed_when_the_mails_time_is_over_before_it_answers(
    channel: EmailChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def hang(*_: object, **__: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    await channel.send(make_envelope())
    kept = channel._idle[0][0]
    monkeypatch.setattr("aiosmtplib.SMTP.rset", hang)
    sending = asyncio.create_task(channel.send(make_envelope()))
    await asked.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not kept.is_connected


async def test_mails_are_sent_at_once_over_several_connections(channel: EmailChannel, mailbox: Mailbox) -> None:
    await asyncio.gather(*(channel.send(make_envelope()) for _ in range(8)))
    assert len(mailbox.mails) == 8


async def test_nobody_listening_is_temporary_and_certain() -> None:
    failure = await failure_of(build(1))
    assert isinstance(failure, TemporaryFailure)
    assert not failure.is_uncertain


async def test_an_answer_that_cannot_be_understood_leaves_the_outcome_unknown() -> None:
    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            writer.write(b"354 go on\r\n" if line.upper().startswith(b"DATA") else b"250 OK\r\n")
            if line.upper().startswith(b"DATA"):
                break
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"taken, I think\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(mumble, "127.0.0.1", 0) as server:
        failure = await failure_of(build(server.sockets[0].getsockname()[1]))
    assert isinstance(failure, TemporaryFailure)
    assert failure.is_uncertain


async def test_a_server_that_hangs_up_in_the_middle_leaves_the_outcome_unknown() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            if line.upper().startswith(b"DATA"):
                break
            writer.write(b"250 OK\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        failure = await failure_of(build(server.sockets[0].getsockname()[1]))
    assert isinstance(failure, TemporaryFailure)
    assert failure.is_uncertain


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_starttls_with_credentials_from_files(
    serve: Serve, mailbox: Mailbox, server_context: ssl.SSLContext, ca_file: Path, tmp_path: Path
) -> None:
    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: LoginPassword) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"ada", b"engine"), handled=False)

    port = await serve(
        tls_context=server_context, require_starttls=True, auth_required=True, authenticator=authenticate
    )
    username, password = tmp_path / "username", tmp_path / "password"
    username.write_text("ada\n", encoding="utf-8")
    password.write_text("engine\n", encoding="utf-8")
    channel = build(port, security="STARTTLS", ca_file=ca_file, username_file=username, password_file=password)
    await channel.send(make_envelope())
    assert len(mailbox.mails) == 1
    await channel.close()

    password.write_text("wrong", encoding="utf-8")
    failure = await failure_of(channel)
    assert isinstance(failure, TemporaryFailure)
    assert "correct username and password" in str(failure)
    assert "wrong" not in str(failure)

    password.unlink()
    failure = await failure_of(channel)
    assert isinstance(failure, TemporaryFailure)
    assert "password cannot be read" in str(failure)
    assert (failure.is_of_channel, failure.is_uncertain) == (True, False)


async def test_tls_from_the_first_byte(
    serve: Serve, mailbox: Mailbox, server_context: ssl.SSLContext, ca_file: Path
) -> None:
    channel = build(await serve(ssl_context=server_context), security="TLS", ca_file=ca_file)
    await channel.send(make_envelope())
    assert len(mailbox.mails) == 1
    await channel.close()


async def test_a_server_that_nobody_vouches_for_gets_no_mail(
    serve: Serve, mailbox: Mailbox, server_context: ssl.SSLContext
) -> None:
    failure = await failure_of(build(await serve(ssl_context=server_context), security="TLS"))
    assert isinstance(failure, TemporaryFailure)
    assert mailbox.mails == []


def test_a_missing_password_file_is_refused_with_its_key_and_path(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"channel 'mail': email.password_file .*nothing cannot be read"):
        build(1, password_file=tmp_path / "nothing")


def test_a_password_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"email.password_file .* is not UTF-8"):
        build(1, password_file=tmp_path / "password")


def test_a_ca_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_text("nothing", encoding="ascii")
    with pytest.raises(SettingsError, match=r"channel 'mail': email.ca_file .* is not usable"):
        build(1, security="TLS", ca_file=path)
