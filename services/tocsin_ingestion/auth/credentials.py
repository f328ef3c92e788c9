"""What a request presents, and how it is refused.

A refusal names the reason in words for the client and, from a closed list, for metrics. It never repeats what was
presented: a mistyped key is still most of a key, and refusals are logged.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from tocsin_ingestion.metrics import AUTH_REFUSED
from tocsin_ingestion.problems import AUTH_UNAVAILABLE, FORBIDDEN, UNAUTHENTICATED, FieldError, Problem

AUTHORIZATION = "Authorization"
API_KEY = "X-API-Key"
REALM = 'Bearer realm="tocsin"'
_BEARER = b"Bearer "


class Reason(StrEnum):
    """Why a caller is not let in, for metrics. The words for the client stand where the reason is found."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    ALGORITHM = "algorithm"
    SIGNER = "unknown-signer"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    CLAIMS = "claims"
    SCOPE = "scope"
    UNAVAILABLE = "unavailable"


_COUNTED = {reason: AUTH_REFUSED.labels(reason.value) for reason in Reason}


def refuse(reason: Reason, detail: str, fix: str) -> Problem:
    """Return the 401. The challenge says `invalid_token` (RFC 6750) unless nothing was presented."""
    _COUNTED[reason].inc()
    challenge = REALM if reason is Reason.MISSING else f'{REALM}, error="invalid_token"'
    errors = (FieldError(AUTHORIZATION, fix),)
    return Problem(UNAUTHENTICATED, detail, errors=errors, headers=(("www-authenticate", challenge),))


def forbid(scope: str) -> Problem:
    """Return the 403 for a good token that may not post."""
    _COUNTED[Reason.SCOPE].inc()
    challenge = f'{REALM}, error="insufficient_scope", scope="{scope}"'
    errors = (FieldError(AUTHORIZATION, f"ask the issuer for a token whose scope claim holds {scope}"),)
    detail = f"The token's scope claim does not hold {scope}"
    return Problem(FORBIDDEN, detail, errors=errors, headers=(("www-authenticate", challenge),))


def unavailable(detail: str) -> Problem:
    """Return the 503 for a caller of whom nothing can be said at present: the fault is ours."""
    _COUNTED[Reason.UNAVAILABLE].inc()
    return Problem(AUTH_UNAVAILABLE, f"{detail}; nothing was stored. Repeat later.")


def read_bearer(authorization: bytes | None, fix: str) -> bytes:
    """Return what follows `Bearer` in the header. Raise Problem (401) if there is no header, or another scheme."""
    if authorization is None:
        raise refuse(Reason.MISSING, "No credentials were sent", fix)
    if authorization.startswith(_BEARER):  # as nearly everybody writes it
        return authorization[len(_BEARER) :]
    scheme, _, credential = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        raise refuse(Reason.MALFORMED, "The Authorization header is of another scheme than Bearer", fix)
    return credential


def read_credentials(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes | None, bytes | None]:
    """Return the values of Authorization and X-API-Key among an ASGI scope's headers, None where there is none.

    Raise Problem (401) if either was sent twice: a proxy in front may have looked at the other one.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (b"authorization", b"x-api-key"):
            if name in found:
                raise refuse(Reason.MALFORMED, "Credentials were sent twice", "send one header with one credential")
            found[name] = value
    return found.get(b"authorization"), found.get(b"x-api-key")
