"""Config names every file a Secret may hold; a Secret need not hold those that are optional."""

from __future__ import annotations

from pathlib import Path

import pytest

from tocsin_consumer.channels.email import build_tls_context
from tocsin_core.connection import build_client_config, check_files
from tocsin_core.errors import SettingsError
from tocsin_core.settings import EmailSettings, KafkaConnection, TLSSettings


def mount(folder: Path, *names: str) -> TLSSettings:
    for name in names:
        (folder / name).write_text("pem")
    return TLSSettings(ca_file=folder / "ca.crt", cert_file=folder / "tls.crt", key_file=folder / "tls.key")


def files_of(tls: TLSSettings) -> set[str]:
    connection = KafkaConnection(brokers=["a:1"], security_protocol="SSL", tls=tls)
    return {key for key in build_client_config(connection) if key.endswith(".location")}


def test_a_secret_with_a_ca_alone_means_no_client_certificate(tmp_path: Path) -> None:
    tls = mount(tmp_path, "ca.crt")
    check_files(tls)
    assert files_of(tls) == {"ssl.ca.location"}


def test_a_whole_secret_is_used_whole(tmp_path: Path) -> None:
    tls = mount(tmp_path, "ca.crt", "tls.crt", "tls.key")
    check_files(tls)
    assert files_of(tls) == {"ssl.ca.location", "ssl.certificate.location", "ssl.key.location"}


def test_half_a_client_certificate_is_a_mistake_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"key_file"):
        check_files(mount(tmp_path, "ca.crt", "tls.crt"))


def test_an_smtp_secret_without_a_ca_trusts_the_system_s(tmp_path: Path) -> None:
    settings = EmailSettings(host="smtp.example.org", from_address="a@example.org", ca_file=tmp_path / "ca.crt")
    context = build_tls_context("mail", settings)
    assert context is not None
    assert context.verify_mode.name == "CERT_REQUIRED"
