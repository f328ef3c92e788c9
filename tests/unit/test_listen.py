"""`tocsin listen` as far as it needs no service; tests/integration/test_stream.py runs it against one."""

from __future__ import annotations

import pytest

from tocsin_cli.__main__ import main
from tocsin_cli.listen import Memory, build_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/stream?user=a%20b%26c"),
        ("https://example.org/notify/", "wss://example.org/notify/v1/stream?user=a%20b%26c"),
        ("wss://example.org", "wss://example.org/v1/stream?user=a%20b%26c"),
    ],
)
def test_the_address_follows_the_services(url: str, address: str) -> None:
    assert build_address(url, "a b&c") == address


@pytest.mark.parametrize("url", ["example.org:8080", "ftp://example.org", "http://"])
def test_an_address_that_is_none_is_named(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--user", "2", "--url", url]) == 2
    assert f"--url {url}" in capsys.readouterr().err


def test_a_notification_is_shown_once_per_channel() -> None:
    memory = Memory(size=2)
    assert [memory.is_new(*each) for each in (("a", "s"), ("a", "s"), ("a", "t"))] == [True, False, True]


def test_the_memory_is_bounded() -> None:
    memory = Memory(size=2)
    assert all(memory.is_new(name, "s") for name in ("a", "b", "c", "a"))
