"""An issuer's public keys, kept while they are good enough.

    never read ──► read ──every 5 min──► read again
        │            │ a token names a key that is not among them: asked at once, at most every 10 s
        │            └ the issuer does not answer: the last keys serve on, for at most a day
        └ 503: of a token nothing can be said

The bound of a day is for an issuer that withdraws a key while we cannot see it. Asking about unknown keys is limited
because whoever writes a token chooses which key it names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from tocsin_core.codec import UNREADABLE_JSON
from tocsin_core.errors import TocsinError
from tocsin_core.logging import get_logger
from tocsin_ingestion.auth.fetching import FetchError, fetch

REFRESH_SECONDS = 300.0
RETRY_SECONDS = 5.0
ASK_AGAIN_SECONDS = 10.0
STALE_SECONDS = 86_400.0
MAX_KEYS = 100
MIN_RSA_BITS = 2_048
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS_BY_CURVE = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",)}
ALGORITHMS = frozenset({*RSA_ALGORITHMS, *(each for names in ALGORITHMS_BY_CURVE.values() for each in names)})
"""Asymmetric ones alone: with HS256 the public key would be the secret."""

_log = get_logger(__name__)


class KeySetError(TocsinError):
    """The document is no set of usable keys; the text says why."""


class Key(NamedTuple):
    """A public key, and the algorithms that its type and the issuer allow."""

    material: Any
    algorithms: tuple[str, ...]


class KeySet:
    """The keys at one address. Used on the event loop; fetching happens in a thread."""

    def __init__(
        self,
        url: str,
        *,
        fetch: Callable[[str], bytes] = fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str | None, Key] = {}
        self._content = b""
        self._read_at = self._asked_at = float("-inf")
        self._trouble = f"{url}: not read yet"
        self._asking: asyncio.Task[None] | None = None
        self.version = 0
        """Grows when the keys change: what was verified by others is worth nothing then."""

    def find(self, name: str | None) -> Key | None:
        """Return the key of that name; of a token that names none, the only key there is."""
        if not self.is_usable:
            return None
        if name is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(name)

    @property
    def is_usable(self) -> bool:
        """Whether the keys were read, and not too long ago."""
        return self._clock() - self._read_at <= STALE_SECONDS

    @property
    def is_current(self) -> bool:
        """Whether the issuer answered when it was asked last: then what it does not list does not exist."""
        return self.is_usable and not self._trouble

    @property
    def may_ask(self) -> bool:
        """Whether somebody who needs an unknown key may have the issuer asked, or wait for the answer under way."""
        return self._asking is not None or self._clock() - self._asked_at >= ASK_AGAIN_SECONDS

    def check(self) -> str:
        """Return why no token can be verified, "" if some can."""
        return "" if self.is_usable else self._trouble

    async def ask(self) -> None:
        """Read the keys anew; whoever asks meanwhile waits for the same answer. Never raises for a failure."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        await asyncio.shield(self._asking)  # one caller who leaves must not take the answer from the others

    async def refresh(self) -> None:
        """Read the keys anew if that is due."""
        pause_seconds = RETRY_SECONDS if self._trouble else REFRESH_SECONDS
        if self._clock() - self._asked_at >= pause_seconds:
            await self.ask()

    async def _ask(self) -> None:
        self._asked_at = self._clock()
        try:
            self._take(await asyncio.to_thread(self._fetch, self._url))
        except (FetchError, KeySetError) as error:
            self._complain(str(error))
        finally:
            self._asking = None

    def _take(self, content: bytes) -> None:
        if content != self._content:
            self._keys = parse_key_set(content)
            self._content = content
            self.version += 1
            _log.info("issuer's keys loaded", url=self._url, keys=len(self._keys))
        self._read_at, self._trouble = self._clock(), ""

    def _complain(self, reason: str) -> None:
        trouble = f"{self._url}: {reason}"
        if trouble != self._trouble:
            _log.error("issuer's keys not loaded", url=self._url, reason=reason, keeping_last=self.is_usable)
        self._trouble = trouble


def parse_key_set(content: bytes) -> dict[str | None, Key]:
    """Return the keys of a JWKS (RFC 7517) that verify signatures, by `kid`. Raise KeySetError if there are none."""
    try:
        listed = msgspec.json.decode(content, type=dict[str, Any]).get("keys")
    except UNREADABLE_JSON as error:
        raise KeySetError(f"not a JSON object: {error}") from error
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise KeySetError("no JWKS: it must hold `keys`, a list of objects; is this the issuer's jwks_uri?")
    if len(listed) > MAX_KEYS:
        raise KeySetError(f"more than {MAX_KEYS} keys")
    found = {each.get("kid"): key for each in listed if (key := parse_key(each)) is not None}
    if not found:
        raise KeySetError(f"none of its {len(listed)} keys verifies signatures of {', '.join(sorted(ALGORITHMS))}")
    return found


def parse_key(jwk: dict[str, Any]) -> Key | None:
    """Return a key, None if it is of another use or kind, or too small to be believed."""
    allowed = RSA_ALGORITHMS if jwk.get("kty") == "RSA" else ALGORITHMS_BY_CURVE.get(str(jwk.get("crv")), ())
    named = jwk.get("alg")
    algorithms = tuple(each for each in allowed if named in (None, each))
    if not algorithms or jwk.get("use", "sig") != "sig" or not isinstance(jwk.get("kid"), str | None):
        return None
    try:
        material = PyJWK(jwk, algorithms[0]).key
    except (PyJWTError, ValueError, TypeError):
        return None
    is_small = isinstance(material, RSAPublicKey) and material.key_size < MIN_RSA_BITS
    return None if is_small or not hasattr(material, "verify") else Key(material, algorithms)
