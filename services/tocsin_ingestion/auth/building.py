"""From settings to a gate."""

from __future__ import annotations

from tocsin_core.settings import AuthSettings, RateLimitSettings
from tocsin_ingestion.auth.gate import Checker, Gate
from tocsin_ingestion.auth.key_ring import KeyRing
from tocsin_ingestion.auth.key_set import KeySet
from tocsin_ingestion.auth.limits import Limiter
from tocsin_ingestion.auth.tokens import Tokens


def build_gate(settings: AuthSettings) -> Gate | None:
    """Return the gate, None where whoever reaches the API may post."""
    checker: Checker
    if settings.keys_folder is not None:
        checker = KeyRing(settings.keys_folder)
    elif settings.jwt is not None:
        checker = Tokens(settings.jwt, KeySet(settings.jwt.jwks_url))
    else:
        return None
    return Gate(checker, _build_limiter(settings.rate_limit))


def _build_limiter(settings: RateLimitSettings | None) -> Limiter | None:
    if settings is None:
        return None
    return Limiter(settings.notifications_per_second, settings.burst or settings.notifications_per_second)
