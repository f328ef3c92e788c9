"""Settings to gates: which mode asks for what, and what each costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tocsin_core.settings import AuthSettings
from tocsin_ingestion.auth.building import build_gate
from tocsin_ingestion.auth.gate import Caller, Checker
from tocsin_ingestion.auth.key_ring import KeyRing
from tocsin_ingestion.auth.tokens import Tokens

JWT = {"issuer": "https://id.example.org", "audience": "orders", "jwks_url": "https://id.example.org/keys"}


def test_without_a_mode_there_is_no_gate() -> None:
    assert build_gate(AuthSettings()) is None


@pytest.mark.parametrize(
    ("settings", "checker"),
    [({"mode": "APIKey", "keys_folder": "/keys"}, KeyRing), ({"mode": "JWT", "jwt": JWT}, Tokens)],
)
def test_each_mode_has_its_checker(settings: dict[str, Any], checker: type[Checker]) -> None:
    gate = build_gate(AuthSettings.model_validate(settings))
    assert gate is not None
    assert isinstance(gate.checker, checker)
    assert gate._grant(Caller("a")).build_headers() == []


def test_a_burst_that_is_not_set_is_a_seconds_worth() -> None:
    limit = {"notifications_per_second": 7}
    gate = build_gate(AuthSettings(mode="APIKey", keys_folder=Path("/keys"), rate_limit=limit))  # type: ignore[arg-type]
    assert gate is not None
    assert dict(gate._grant(Caller("a")).build_headers())["ratelimit-limit"] == "7"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "APIKey"}, "keys_folder belongs to mode APIKey"),
        ({"mode": "JWT"}, "jwt belongs to mode JWT"),
        ({"keys_folder": "/keys"}, "keys_folder belongs to mode APIKey"),
        ({"mode": "APIKey", "keys_folder": "/keys", "jwt": JWT}, "jwt belongs to mode JWT"),
        ({"rate_limit": {"notifications_per_second": 1}}, "rate_limit counts by caller"),
        ({"mode": "JWT", "jwt": JWT | {"jwks_url": "file:///etc/passwd"}}, "jwks_url"),
        ({"mode": "JWT", "jwt": JWT | {"leeway_seconds": 301}}, "leeway_seconds"),
        ({"mode": "JWT", "jwt": JWT | {"send_scope": 'a" b'}}, "send_scope"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AuthSettings.model_validate(settings)


def test_a_pod_without_tokens_does_not_load_what_verifies_them() -> None:
    script = "import sys, tocsin_ingestion.server; sys.exit('jwt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
