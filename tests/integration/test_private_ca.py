"""What docs/production.md says of private CAs: clients that have no field for one trust what SSL_CERT_FILE names."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from tocsin_consumer.channels.email import build_tls_context
from tocsin_core.directory.http_source import HTTPProfiles
from tocsin_core.directory.redis_source import RedisProfiles
from tocsin_core.errors import TocsinError
from tocsin_core.settings import EmailSettings, HTTPUsersSettings, RedisSettings, RedisUsersSettings
from tocsin_core.store import STORE_ERRORS, connect
from tocsin_ingestion.auth.fetching import fetch


async def ask_users_http(port: int) -> None:
    source = HTTPProfiles(HTTPUsersSettings(url=f"https://127.0.0.1:{port}/{{id}}"))
    try:
        await source.ask(["2"])
    finally:
        await source.close()


async def ask_users_redis(port: int) -> None:
    source = RedisProfiles(RedisUsersSettings(url=f"rediss://127.0.0.1:{port}/0"))
    try:
        await source.ask(["2"])
    finally:
        await source.close()


async def ask_store(port: int) -> None:
    async with connect(RedisSettings(url=f"rediss://127.0.0.1:{port}/0"), max_connections=1) as store:
        await store.ping()


async def ask_issuer(port: int) -> None:
    await asyncio.to_thread(fetch, f"https://127.0.0.1:{port}/keys")


async def greet_mail_server(port: int) -> None:
    context = build_tls_context("mail", EmailSettings(host="127.0.0.1", from_address="a@example.org"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    await reader.read()
    writer.close()


Ask = Callable[[int], Awaitable[None]]
# The channel Webhook is in test_transport.py.
CLIENTS = [ask_users_http, ask_users_redis, ask_store, ask_issuer, greet_mail_server]


@asynccontextmanager
async def hanging_up(authority: trustme.CA) -> AsyncIterator[tuple[int, list[str]]]:
    """Yield the port of a server that ends each connection it has shaken hands on, and a list of these."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    greeted: list[str] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeted.append("trusted")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], greeted


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that SSL_CERT_FILE names."""
    authority, path = trustme.CA(), tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return authority


@pytest.mark.parametrize("ask", CLIENTS, ids=lambda ask: ask.__name__)
async def test_an_authority_that_the_environment_names_is_trusted(ask: Ask, authority: trustme.CA) -> None:
    async with hanging_up(authority) as (port, greeted):
        with contextlib.suppress(TocsinError, *STORE_ERRORS):
            await ask(port)
    assert greeted


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("ask", CLIENTS, ids=lambda ask: ask.__name__)
async def test_another_authority_is_not(ask: Ask) -> None:
    async with hanging_up(trustme.CA()) as (port, greeted):
        with pytest.raises((TocsinError, *STORE_ERRORS)):
            await ask(port)
    assert not greeted
