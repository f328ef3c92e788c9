"""Who a recipient is: the user directory that ingestion asks before it accepts and the consumer before it sends.

The interface is one asynchronous question, the same for a file and for a directory behind Redis or HTTP
(`tocsin_core.directory`), and for ingestion a short one beside it that never waits: most recipients are at hand.
The file is a mounted ConfigMap: kubelet replaces it while we run, so it is read again when it changes, and a broken
edit keeps the last good state instead of turning every recipient into an unknown one. inotify was refused: kubelet
swaps symlinks, watchers miss that on some file systems, and one stat a second is free.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec
import yaml

from tocsin_core.codec import UNREADABLE_JSON
from tocsin_core.errors import TocsinError
from tocsin_core.logging import get_logger

MAX_FILE_BYTES = 67_108_864
CHECK_INTERVAL_SECONDS = 1.0
NOTHING = ("", "~", "null")
"""What a person writes in YAML for "no value"; the loader below leaves every scalar as the text that was written."""

# Every scalar stays text: an id is a string, so `010` must not become 8, nor `1_000` become 1000, nor `no` False.
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_log = get_logger(__name__)


class DirectoryUnavailable(TocsinError):
    """The directory cannot tell whether this user exists; the text says why and what to do."""

    retriable: ClassVar[bool] = True


class ProfileInvalid(DirectoryUnavailable):
    """The directory answers, and what it holds about this user is no profile; the text names the user and the field."""


class DirectoryError(TocsinError):
    """The content of a directory is not what it must be; the text names the user, the field and the fix."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one person. A channel takes from it what it needs and says when that is missing."""

    id: str
    name: str | None = None
    email: str | None = None
    locale: str | None = None
    devices: tuple[dict[str, Any], ...] = ()


class UserDirectory(Protocol):
    """Where recipients and their profiles are known."""

    async def find(self, user_id: str) -> Profile | None:
        """Return the user's profile, None if there is no such user. Raise DirectoryUnavailable if that is unknown."""
        ...


class QuickUserDirectory(UserDirectory, Protocol):
    """A directory that can tell of most users without being waited for."""

    def knows_all(self, user_ids: Collection[str]) -> bool:
        """Say at once that there are these users. False says nothing: ask `find`."""
        ...


class ServiceDirectory(QuickUserDirectory, Protocol):
    """A directory as a service keeps one, from its start to its end."""

    patience_seconds: float
    """How long a directory that is down can go on answering about some users."""

    @property
    def trouble(self) -> str:
        """Return why the directory is not asked at present, "" if it is."""
        ...

    async def check(self) -> None:
        """Ask it whether it is there. Raise DirectoryUnavailable if it is not."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


class FileUserDirectory:
    """The directory in a YAML file, `"2": {name: Ada, email: ada@example.org}`, read again when the file changes."""

    patience_seconds = 0.0
    trouble = ""  # once it was read it is never down

    def __init__(
        self,
        path: Path,
        *,
        check_interval_seconds: float = CHECK_INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._check_interval_seconds = check_interval_seconds
        self._clock = clock
        self._lock = asyncio.Lock()
        self._look: asyncio.Future[None] | None = None
        self._next_check = float("-inf")
        self._seen: object = None
        self._profiles: dict[str, Profile] | None = None
        self._trouble = f"{path}: not read yet"

    async def find(self, user_id: str) -> Profile | None:
        """Return the user's profile, None if there is no such user.

        Raise DirectoryUnavailable if the file could never be read.
        """
        if self._clock() >= self._next_check and not (self._profiles is not None and self._lock.locked()):
            await self._refresh()
        if self._profiles is None:
            raise DirectoryUnavailable(self._trouble)
        return self._profiles.get(user_id)

    def knows_all(self, user_ids: Collection[str]) -> bool:
        """Say that there are these users. False says nothing: the file was not read yet, or not looked at of late.

        A look that is due begins here and holds nobody up: were it waited for, everybody who asks in that moment would
        have to, once a second, and the slowest hundredth of all answers would be theirs.
        """
        if self._profiles is None or not all(map(self._profiles.__contains__, user_ids)):
            return False
        late_seconds = self._clock() - self._next_check
        if late_seconds < 0 or self._is_looking:
            return True
        if late_seconds >= self._check_interval_seconds:
            return False
        self._look = asyncio.ensure_future(self._refresh())
        return True

    async def check(self) -> None:
        """Look at the file if that is due. Raise DirectoryUnavailable if it could never be read."""
        await self.find("-")

    async def close(self) -> None:
        """Wait for a look that has begun; nothing else is open."""
        if self._look is not None:
            await self._look

    @property
    def _is_looking(self) -> bool:
        return self._lock.locked() or (self._look is not None and not self._look.done())

    async def _refresh(self) -> None:
        async with self._lock:
            if self._clock() < self._next_check:
                return
            await asyncio.to_thread(self._load_if_changed)
            self._next_check = self._clock() + self._check_interval_seconds

    def _load_if_changed(self) -> None:
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            if status.st_size > MAX_FILE_BYTES:
                self._complain(seen, f"larger than {MAX_FILE_BYTES} bytes: split the users over pipelines")
                return
            profiles = parse_users(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            self._complain(None, f"cannot be read ({error.strerror}): is the users ConfigMap mounted, key users.yaml?")
        except (DirectoryError, UnicodeDecodeError) as error:
            self._complain(seen, str(error))
        else:
            self._seen, self._profiles = seen, profiles
            _log.info("users loaded", path=str(self._path), users=len(profiles))

    def _complain(self, seen: object, reason: str) -> None:
        trouble = f"{self._path}: {reason}"
        if seen is None and trouble == self._trouble:
            return  # an unreadable file is tried every second, and said once
        self._seen, self._trouble = seen, trouble
        _log.error("users not loaded", path=str(self._path), reason=reason, keeping_last=self._profiles is not None)


def parse_users(text: str) -> dict[str, Profile]:
    """Return the profiles in a users file, by id. Raise DirectoryError naming the line, or the user and the field."""
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - the base loader builds str, list and dict only
    except yaml.YAMLError as error:
        raise DirectoryError(f"not YAML: {error}") from error
    except RecursionError as error:
        raise DirectoryError("nested too deeply") from error
    if content is None or content in NOTHING:
        return {}
    if not isinstance(content, dict):
        raise DirectoryError('not a mapping of ids to profiles: write `"2": {name: Ada, email: ada@example.org}`')
    return {user_id: _parse_entry(user_id, fields) for user_id, fields in content.items()}


def parse_profile(user_id: str, text: bytes | str) -> Profile:
    """Return the profile in a JSON object, with the fields of an entry of the file.

    Raise ProfileInvalid naming the user and the field, DirectoryError if it is no JSON object at all.
    """
    try:
        fields = msgspec.json.decode(text)
    except UNREADABLE_JSON as error:
        raise DirectoryError(f"user {user_id!r}: what it holds is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise DirectoryError(f'user {user_id!r}: a profile is an object such as {{"name": "Ada"}}')
    try:
        return _build_profile(user_id, {key: value for key, value in fields.items() if value not in ("", None)})
    except DirectoryError as error:
        raise ProfileInvalid(str(error)) from error


def _parse_entry(user_id: object, fields: object) -> Profile:
    if not isinstance(user_id, str) or not user_id:
        raise DirectoryError(f"an id must be a text, not {user_id!r}")
    if fields in NOTHING:
        return Profile(id=user_id)
    if not isinstance(fields, dict):
        raise DirectoryError(f"user {user_id!r}: a profile is a mapping such as {{name: Ada}}, not {fields!r}")
    return _build_profile(user_id, {key: value for key, value in fields.items() if value not in NOTHING})


def _build_profile(user_id: str, fields: dict[str, Any]) -> Profile:
    try:
        return msgspec.convert(fields | {"id": user_id}, Profile)
    except msgspec.ValidationError as error:
        raise DirectoryError(f"user {user_id!r}: {error}") from error
