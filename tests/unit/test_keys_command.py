"""`tocsin keys`: the key once, its hash for the Secret; and how a credential reaches the other commands."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from documentation import find_block
from tocsin_cli.__main__ import main
from tocsin_cli.credentials import CredentialError, build_headers, read_token
from tocsin_core.api_keys import hash_key, make_key


def test_create_prints_the_key_once_and_its_hash_for_a_new_and_for_an_old_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["keys", "create", "billing", "--secret", "orders-keys"]) == 0
    printed = capsys.readouterr().out
    key = printed.splitlines()[0]
    assert printed.count(key) == 1
    assert f"create secret generic orders-keys --from-literal=billing={hash_key(key)}" in printed
    (patch,) = re.findall(r"--patch='(.*)'", printed)
    assert json.loads(patch) == {"stringData": {"billing": hash_key(key)}}


def test_create_prints_json_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "billing", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"name": "billing", "key": told["key"], "hash": hash_key(told["key"])}


def test_hash_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    key = make_key()
    monkeypatch.setattr("sys.stdin", io.StringIO(key + "\n"))
    assert main(["keys", "hash"]) == 0
    assert capsys.readouterr().out == hash_key(key) + "\n"


def test_a_password_is_not_hashed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\n"))
    assert main(["keys", "hash"]) == 2
    captured = capsys.readouterr()
    assert "not a key" in captured.err
    assert "hunter2" not in captured.err


def test_a_name_that_no_secret_takes_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "a b"]) == 2
    assert "a name is" in capsys.readouterr().err


def test_a_credential_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOCSIN_TOKEN", raising=False)
    assert read_token(None) == ""
    assert build_headers("") == {}
    monkeypatch.setenv("TOCSIN_TOKEN", "from-environment")
    (tmp_path / "key").write_text("from-file\n")
    assert read_token(None) == "from-environment"
    assert build_headers(read_token(tmp_path / "key")) == {"Authorization": "Bearer from-file"}


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff"])
def test_a_credential_file_that_holds_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialError, match=r"--token-file .*key: "):
        read_token(path)


def test_the_page_about_ingestion_tells_the_commands_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in find_block("docs/ingestion.md", "keys create").splitlines() if line]
    monkeypatch.setattr("sys.stdin", io.StringIO(make_key() + "\n"))
    for line in lines:
        words = line.split("<")[0].split()
        assert words[0].endswith("tocsin")
        assert main(words[1:]) == 0
    assert "orders-keys" in capsys.readouterr().out
