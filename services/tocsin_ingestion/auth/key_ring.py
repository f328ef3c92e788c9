"""API keys: the hashes in a mounted Secret, read again when it changes.

Every entry stands alone: one that is no hash is complained of and lets nobody in, and the others go on working. An
entry that is gone is a key that is revoked. A folder that cannot be read keeps the last good state, as it is the
kubelet's trouble and not the owner's wish; one that never could be read is a 503, never a 401, because nothing is known
of the key.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tocsin_core.api_keys import FORM, digest_key, parse_entries
from tocsin_core.logging import get_logger
from tocsin_ingestion.auth.credentials import API_KEY, Reason, read_bearer, refuse, unavailable
from tocsin_ingestion.auth.gate import Caller
from tocsin_ingestion.metrics import KEY_USED

FIX = "send `Authorization: Bearer tcs_…` with a key of this pipeline"
MAX_ENTRY_BYTES = 1_024
NAMES_TOLD = 20
INDEX_BYTES = 8

_log = get_logger(__name__)


class _Found(NamedTuple):
    """What a folder held: its files as they were listed, and their texts by name."""

    seen: tuple[object, ...]
    texts: dict[str, str]


class KeyRing:
    """The keys of a folder, one file each: its name is the key's name, its content the key's hash."""

    schemes: Mapping[str, Any] = MappingProxyType(
        {
            "apiKey": {"type": "http", "scheme": "bearer", "description": "A key of this pipeline, tcs_…"},
            "apiKeyHeader": {"type": "apiKey", "in": "header", "name": API_KEY},
        }
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[object, ...] | None = None
        # By a part of the digest, so that the digests themselves are compared in constant time.
        self._entries: dict[bytes, Caller] | None = None
        self._trouble = f"{folder}: not read yet"

    def try_identify(self, authorization: bytes | None, api_key: bytes | None) -> Caller:
        """Return the key's owner. Raise Problem: 401, or 503 if the keys could never be read."""
        if api_key is None:
            key = read_bearer(authorization, FIX)
        elif authorization is None:
            key = api_key
        else:
            raise refuse(Reason.MALFORMED, "Credentials were sent twice", "send either Authorization or X-API-Key")
        digest = digest_key(key)
        if digest is None:
            raise refuse(Reason.MALFORMED, f"What was sent is not a key: a key is {FORM}", FIX)
        return self._find(digest)

    async def identify(self, authorization: bytes | None, api_key: bytes | None) -> Caller:
        """Return the key's owner, as above."""
        return self.try_identify(authorization, api_key)

    def still_knows(self, caller: Caller) -> bool:
        """Return whether the caller's key is still there, whatever its name is now."""
        return self._look_up(caller.key_digest) is not None

    def check(self) -> str:
        """Return why nobody can be let in: no key was ever read. An owner who takes the last one away means it."""
        return self._trouble if self._entries is None else ""

    async def refresh(self) -> None:
        """Read the folder in a thread if it changed, because a disk may be slow; what is found is taken in the loop."""
        try:
            found = await asyncio.to_thread(self._read_changed)
        except OSError as error:
            self._complain_of(error)
        else:
            self._take(found)

    def reload(self) -> None:
        """Read the folder if it changed."""
        try:
            found = self._read_changed()
        except OSError as error:
            self._complain_of(error)
        else:
            self._take(found)

    def _read_changed(self) -> _Found | None:
        """Return what the folder holds, or None if nothing changed. Raise OSError."""
        seen = tuple(_list_files(self._folder))
        if seen == self._seen:
            return None
        return _Found(seen, {name: _read(self._folder / name) for name, *_ in seen})

    def _complain_of(self, error: OSError) -> None:
        self._complain(f"{self._folder}: cannot be read ({error.strerror}): is the keys' Secret mounted?")

    def _find(self, digest: bytes) -> Caller:
        if self._entries is None:
            raise unavailable("The keys could not be read yet")
        caller = self._look_up(digest)
        if caller is None:
            raise refuse(Reason.UNKNOWN_KEY, "No such key, or not any more", FIX)
        KEY_USED.inc(label=caller.name)
        return caller

    def _look_up(self, digest: bytes) -> Caller | None:
        caller = (self._entries or {}).get(digest[:INDEX_BYTES])
        return caller if caller is not None and hmac.compare_digest(caller.key_digest, digest) else None

    def _take(self, found: _Found | None) -> None:
        if found is None:
            return
        self._seen = found.seen
        digests, wrong = parse_entries(found.texts)
        for name, reason in wrong.items():
            _log.error("API key refused", key=name, folder=str(self._folder), reason=reason)
        if self._entries is None and not digests:
            self._complain(f"{self._folder}: holds no API key: add what `tocsin keys create` prints to the Secret")
            return
        for caller in (self._entries or {}).values():
            if caller.name not in digests:
                KEY_USED.counts.pop(caller.name, None)
        self._entries = {digest[:INDEX_BYTES]: Caller(name, key_digest=digest) for name, digest in digests.items()}
        for name in digests:
            KEY_USED.inc(0, label=name)
        self._trouble = ""
        _log.info("API keys loaded", folder=str(self._folder), count=len(digests), keys=list(digests)[:NAMES_TOLD])

    def _complain(self, trouble: str) -> None:
        if trouble == self._trouble:
            return  # tried again all the time, and said once
        self._trouble = trouble
        _log.error("API keys not loaded", reason=trouble, keeping_last=self._entries is not None)


def _list_files(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    """Yield what tells a changed folder: kubelet swaps links, so it is the files behind them that are looked at."""
    with os.scandir(folder) as found:
        for name in sorted(each.name for each in found if not each.name.startswith(".")):
            status = (folder / name).stat()
            yield name, status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_ENTRY_BYTES).decode("utf-8", errors="replace")
