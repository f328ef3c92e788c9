"""From settings to a gate."""

from __future__ import annotations

from tocsin_core.settings import AuthSettings, JWTSettings, RateLimitSettings
from tocsin_ingestion.auth.gate import Checker, Gate
from tocsin_ingestion.auth.key_ring import KeyRing
from tocsin_ingestion.auth.limits import Limiter


def build_gate(settings: AuthSettings) -> Gate | None:
    """Return the gate, None where whoever reaches the API may post."""
    if settings.keys_folder is not None:
        checker: Checker = KeyRing(settings.keys_folder)
    elif settings.jwt is not None:
        checker = _build_tokens(settings.jwt)
    else:
        return None
    return Gate(checker, _build_limiter(settings.rate_limit))


def _build_tokens(settings: JWTSettings) -> Checker:
    # Here, because it is 9 MiB of cryptography that a pod without tokens has no use for.
    from tocsin_ingestion.auth.key_set import KeySet  # noqa: PLC0415
    from tocsin_ingestion.auth.tokens import Tokens  # noqa: PLC0415

    return Tokens(settings, KeySet(settings.jwks_url))


def _build_limiter(settings: RateLimitSettings | None) -> Limiter | None:
    if settings is None:
        return None
    return Limiter(settings.notifications_per_second, settings.burst or settings.notifications_per_second)
