"""One JSON object per line, whoever speaks: our own code, uvicorn, kopf, librdkafka.

structlog renders, the standard library carries: its handlers bring rotation, and every library already speaks to it.
An own writer beside the standard library was refused: it would win microseconds and lose the libraries' lines.
Keys: timestamp, level, event, logger, service; and of a notification's journey, where known, trace_id,
notification_id, topic, partition, offset, channel.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from logging.handlers import RotatingFileHandler
from typing import Any, cast

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tocsin_core.errors import SettingsError
from tocsin_core.settings import LogSettings

MEGABYTE = 1_000_000
JOURNEY_KEYS = ("trace_id", "notification_id", "topic", "partition", "offset", "channel")
SECRET_KEYS = frozenset({"authorization", "credentials", "password", "sasl_password", "secret", "token"})
CHATTY_LOGGERS = ("aiohttp", "asyncio", "hpack", "httpcore", "httpx", "kubernetes", "uvicorn.access")
HIDDEN = "***"
_USERINFO = re.compile(r"(?P<scheme>\w+://)[^/\s@\"]*@")

_encoder = msgspec.json.Encoder(enc_hook=repr)


def configure_logging(settings: LogSettings, *, service: str) -> None:
    """Send every log line of this process to standard output, or to `settings.file` with rotation by size and count.

    Replaces what was configured before. Raise SettingsError when the file cannot be opened.
    """
    handler = _build_handler(settings)
    handler.setFormatter(_build_formatter(service))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger whose lines carry `name`; it follows `configure_logging` even when that comes later."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name))


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # text only: tracebacks with local variables would carry secrets
    ]


def _build_formatter(service: str) -> logging.Formatter:
    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared_processors(), structlog.stdlib.ExtraAdder(allow=JOURNEY_KEYS)],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, add_service, _hide_secrets, _render],
    )


def _build_handler(settings: LogSettings) -> logging.Handler:
    if settings.file is None:
        return logging.StreamHandler(sys.stdout)
    try:
        handler = RotatingFileHandler(
            settings.file,
            maxBytes=settings.rotation_size * MEGABYTE,
            backupCount=settings.rotation_count,
            encoding="utf-8",
        )
    except OSError as error:
        raise SettingsError(
            f"log.file {str(settings.file)!r}: {error.strerror}; name a file in a directory this user may write to"
        ) from error
    if settings.rotation_count == 0:
        handler.mode = "w"  # keep no old file: start over. As it comes, the handler would let the file grow for ever.
    return handler


def _hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in event:
        if key in SECRET_KEYS:
            event[key] = HIDDEN
    return event


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    line = _encode(event)
    return _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", line) if "://" in line and "@" in line else line


def _encode(event: Mapping[str, Any] | MutableMapping[str, Any]) -> str:
    try:
        return _encoder.encode(event).decode()
    except (
        TypeError,
        ValueError,
        RecursionError,
    ):  # keys that are no strings, lone surrogates: a log line never raises
        return json.dumps({str(key): repr(value) for key, value in event.items()})
