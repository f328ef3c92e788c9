"""API keys: how they look, and what of them is kept. Pure, but for the randomness of a new key.

A key is 256 random bits behind a prefix that secret scanners can look for. Only its SHA-256 is kept: for so much
randomness a slow password hash would add cost to every request and nothing to what a thief of the Secret can do. That
holds for random keys alone, so nothing else is a key: what a person thought up does not have the form, and is refused
where it is hashed, where its hash is read and where it is presented.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping

from tocsin_core.errors import TocsinError

PREFIX = "tcs_"
HASH_PREFIX = "sha256:"
RANDOM_BYTES = 32
MIN_DIFFERENT_CHARACTERS = 16
"""A random key has about 31; one in a hundred million has fewer than this."""
FORM = "tcs_ and 43 letters, digits, - and _"
_KEY = re.compile(rb"tcs_[A-Za-z0-9_-]{43}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[-_a-zA-Z0-9][-._a-zA-Z0-9]{0,252}")


class ApiKeyError(TocsinError):
    """Not a key, or not the hash of one; the text says what to write, and never repeats what was written."""


def make_key() -> str:
    """Return a new key."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def hash_key(key: str) -> str:
    """Return what a Secret holds of a key. Raise ApiKeyError unless the key is one that `make_key` could have made."""
    digest = digest_key(key.encode())
    if digest is None:
        raise ApiKeyError(f"not a key: it must be {FORM}; make one with `tocsin keys create`")
    if len(set(key.removeprefix(PREFIX))) < MIN_DIFFERENT_CHARACTERS:
        raise ApiKeyError("too easy to guess: keys are random; make one with `tocsin keys create`")
    return HASH_PREFIX + digest.hex()


def digest_key(key: bytes) -> bytes | None:
    """Return the SHA-256 of what somebody presents as a key, None if it cannot be one."""
    return hashlib.sha256(key).digest() if _KEY.fullmatch(key) else None


def check_name(name: str) -> None:
    """Raise ApiKeyError unless a Secret can have an entry of that name."""
    if not _NAME.fullmatch(name):
        raise ApiKeyError(
            f"{name!r}: a name is 1 to 253 letters, digits, dashes, underscores and, but for the first, dots"
        )


def parse_entries(texts: Mapping[str, str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the digests of a Secret's good entries, by name, and of the others what is wrong with them."""
    digests: dict[str, bytes] = {}
    wrong: dict[str, str] = {}
    names: dict[bytes, str] = {}
    for name, text in sorted(texts.items()):
        try:
            digest = parse_hash(text)
        except ApiKeyError as error:
            wrong[name] = str(error)
            continue
        if digest in names:
            wrong[name] = f"is the same key as {names[digest]}: give every client a key of its own"
        else:
            digests[name], names[digest] = digest, name
    return digests, wrong


def parse_hash(text: str) -> bytes:
    """Return the digest in an entry of the Secret. Raise ApiKeyError saying what stands there instead of a hash."""
    text = text.strip()
    if _HASH.fullmatch(text):
        return bytes.fromhex(text.removeprefix(HASH_PREFIX))
    if text.startswith(PREFIX):
        raise ApiKeyError(
            "holds a key, not its hash: whoever reads the Secret could use it; make a new key with `tocsin keys create`"
        )
    raise ApiKeyError(f"must be {HASH_PREFIX} and 64 hexadecimal digits, as `tocsin keys create` prints it")
