"""JSON Web Tokens: verified once, then known until they expire.

A signature costs more than all the rest of a request, and clients send the same token for minutes. What was verified is
kept under the token's SHA-256, so that the memory holds no credential, and all of it is dropped when the issuer's keys
change. What was refused is not kept: whoever makes up tokens would fill that memory.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jwt

from tocsin_core.settings import JWTSettings
from tocsin_ingestion.auth.credentials import Reason, read_bearer, refuse, unavailable
from tocsin_ingestion.auth.gate import Caller
from tocsin_ingestion.auth.key_set import ALGORITHMS, Key, KeySet
from tocsin_ingestion.problems import Problem

FIX = "send `Authorization: Bearer` with a token of this pipeline's issuer"
MAX_TOKEN_BYTES = 8_192
MAX_KNOWN = 10_000
MAX_SUBJECT_CHARACTERS = 255
"""As OpenID Connect bounds it."""
SCOPE_CLAIMS = ("scope", "scp")
"""Both names are in use for the same: a text of words (RFC 9068), or a list."""
REQUIRED_CLAIMS = ["exp", "iss", "aud", "sub"]


class _Known(NamedTuple):
    caller: Caller
    until: float


class Tokens:
    """Knows callers by the tokens of one issuer."""

    def __init__(
        self,
        settings: JWTSettings,
        keys: KeySet,
        *,
        max_known: int = MAX_KNOWN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        token = f"A token of {settings.issuer} for {settings.audience}"
        self.schemes: Mapping[str, Any] = {
            "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": token}
        }
        self._settings = settings
        self._keys = keys
        self._max_known = max_known
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._version = keys.version
        self.check = keys.check
        self.refresh = keys.refresh

    def try_identify(self, authorization: bytes | None, api_key: bytes | None) -> Caller | None:
        """Return the token's subject, None if the issuer has to be asked first. Raise Problem (401, 503)."""
        del api_key  # a token has one place
        token = read_bearer(authorization, FIX)
        digest = hashlib.sha256(token).digest()
        caller = self._recall(digest)
        return self._verify(token, digest) if caller is None else caller

    async def identify(self, authorization: bytes | None, api_key: bytes | None) -> Caller:
        """Return the token's subject, asking the issuer if that is needed. Raise Problem (401, 503)."""
        caller = self.try_identify(authorization, api_key)
        if caller is None:
            await self._keys.ask()
            caller = self.try_identify(authorization, api_key)
        if caller is None:
            raise unavailable("The issuer's keys are not at hand")
        return caller

    def still_knows(self, caller: Caller) -> bool:
        """Return True: a token is good until it expires, and who listens with it is closed then."""
        del caller
        return True

    def _recall(self, digest: bytes) -> Caller | None:
        if self._version != self._keys.version:
            self._known.clear()
            self._version = self._keys.version
        known = self._known.get(digest)
        # Keys too old to be believed take what they verified along.
        return known.caller if known is not None and known.until > self._clock() and self._keys.is_usable else None

    def _verify(self, token: bytes, digest: bytes) -> Caller | None:
        name = read_key_name(token)
        key = self._keys.find(name)
        if key is None:
            if self._keys.may_ask and (name is not None or not self._keys.is_usable):
                return None
            raise self._explain_missing_key()
        caller = build_caller(decode(token, key, self._settings), self._settings)
        self._known[digest] = _Known(caller, caller.expires_at or 0.0)
        if len(self._known) > self._max_known:
            self._known.popitem(last=False)
        return caller

    def _explain_missing_key(self) -> Problem:
        if not self._keys.is_current:
            return unavailable("The issuer's keys cannot be read")
        return refuse(Reason.SIGNER, "The token is signed by no key of the issuer", FIX)


def read_key_name(token: bytes) -> str | None:
    """Return which key a token says it is signed by (`kid`). Raise Problem (401) for what is no token of ours."""
    if len(token) > MAX_TOKEN_BYTES:
        raise refuse(Reason.MALFORMED, f"The token is larger than {MAX_TOKEN_BYTES} bytes", FIX)
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise refuse(Reason.MALFORMED, "What was sent is not a JSON Web Token", FIX) from error
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise refuse(Reason.ALGORITHM, f"The token's alg is not one of {', '.join(sorted(ALGORITHMS))}", FIX)
    if "crit" in header:
        raise refuse(Reason.MALFORMED, "The token asks for extensions (crit) that are not understood here", FIX)
    name: str | None = header.get("kid")
    return name


def decode(token: bytes, key: Key, settings: JWTSettings) -> dict[str, Any]:
    """Return the claims of a token that is signed, in time, and meant for us. Raise Problem (401)."""
    try:
        return jwt.decode(
            token,
            key.material,
            algorithms=key.algorithms,
            issuer=settings.issuer,
            audience=settings.audience,
            leeway=settings.leeway_seconds,
            options={"require": REQUIRED_CLAIMS},
        )
    except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
        raise _explain(error, settings) from error


def build_caller(claims: dict[str, Any], settings: JWTSettings) -> Caller:
    """Return whom the claims speak of. Raise Problem (401) if their subject cannot be counted or looked up."""
    subject = claims["sub"]
    if not 1 <= len(subject) <= MAX_SUBJECT_CHARACTERS:
        raise refuse(Reason.CLAIMS, f"The token's sub must be 1 to {MAX_SUBJECT_CHARACTERS} characters", FIX)
    missing = "" if settings.send_scope in {"", *_read_scopes(claims)} else settings.send_scope
    return Caller(subject, missing, listens_as=subject, expires_at=float(claims["exp"]) + settings.leeway_seconds)


def _read_scopes(claims: dict[str, Any]) -> set[str]:
    scopes: set[str] = set()
    for name in SCOPE_CLAIMS:
        value = claims.get(name)
        words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
        scopes |= {word for word in words if isinstance(word, str)}
    return scopes


def _explain(error: Exception, settings: JWTSettings) -> Problem:
    explained: tuple[tuple[type[Exception], Reason, str], ...] = (
        (jwt.ExpiredSignatureError, Reason.EXPIRED, "The token has expired: get a new one"),
        (jwt.ImmatureSignatureError, Reason.NOT_YET_VALID, "The token is not valid yet: is a clock wrong?"),
        (jwt.InvalidIssuerError, Reason.ISSUER, f"The token's iss must be {settings.issuer}"),
        (jwt.InvalidAudienceError, Reason.AUDIENCE, f"The token's aud must hold {settings.audience}"),
        (jwt.MissingRequiredClaimError, Reason.CLAIMS, f"The token lacks one of {', '.join(REQUIRED_CLAIMS)}"),
        (jwt.exceptions.InvalidSubjectError, Reason.CLAIMS, "The token's sub must be a text"),
        (jwt.InvalidSignatureError, Reason.SIGNATURE, "The token's signature is wrong"),
        (jwt.InvalidAlgorithmError, Reason.ALGORITHM, "The token's alg is not one that its key allows"),
    )
    for kind, reason, detail in explained:
        if isinstance(error, kind):
            return refuse(reason, detail, FIX)
    return refuse(Reason.MALFORMED, "The token cannot be read", FIX)
