"""From settings to the directory of a service."""

from __future__ import annotations

from tocsin_core.directory.http_source import HTTPProfiles
from tocsin_core.directory.redis_source import RedisProfiles
from tocsin_core.directory.remote import RemoteUserDirectory
from tocsin_core.errors import SettingsError
from tocsin_core.settings import UsersSettings
from tocsin_core.users import FileUserDirectory, ServiceDirectory


def build_directory(settings: UsersSettings) -> ServiceDirectory:
    """Return the directory that the settings name; nothing connects yet."""
    if settings.redis is not None:
        return RemoteUserDirectory(RedisProfiles(settings.redis), settings.cache)
    if settings.http is not None:
        return RemoteUserDirectory(HTTPProfiles(settings.http), settings.cache)
    if settings.file is not None:
        return FileUserDirectory(settings.file)
    raise SettingsError("users: set one of users.file, users.redis and users.http")
