"""One JSON object per line, whoever speaks: our own code, uvicorn, kopf, librdkafka.

structlog renders, the standard library's handlers carry: they bring rotation, and every library already speaks to them.
Our own lines are rendered before they reach a handler and skip the standard library's loggers, which would search the
stack for the caller and render once more: a consumer writes a line for every delivery, and that was half of its price.
What one turn of the event loop says goes to standard output in one write: a write lets go of the interpreter's lock, so
one for each line had the other threads take turns with every delivery. Warnings and worse wait for nothing.
Keys: timestamp, level, event, logger, service; and of a notification's journey, where known, trace_id,
notification_id, topic, partition, offset, channel.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import Any, TextIO, cast

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


class _Line(logging.LogRecord):
    """A line that is rendered already. What a record usually knows beside its text would cost more than the text."""

    args = exc_info = exc_text = stack_info = None
    created = msecs = 0.0
    filename = module = pathname = ""
    levelname = logging.getLevelName(logging.INFO)
    levelno = logging.INFO
    lineno = 0

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.msg = text


class _Carrier:
    """What structlog's loggers write to: the handlers that the root logger has at that moment."""

    __slots__ = ("_root", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._root = logging.getLogger()

    def carry(self, text: str) -> None:
        """Give a line to the handlers. Levels were filtered before it was rendered."""
        line = _Line(self.name, text)
        for handler in self._root.handlers:
            handler.handle(line)

    def carry_now(self, text: str) -> None:
        """Give a line to the handlers and have them write it at once."""
        self.carry(text)
        for handler in self._root.handlers:
            handler.flush()

    debug = info = carry
    warning = error = critical = carry_now


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders what libraries say; what we say is rendered already."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return str(record.msg) if isinstance(record, _Line) else super().format(record)


class _Output(logging.StreamHandler[TextIO]):
    """Writes together what one turn of the event loop says; elsewhere, each line by itself."""

    _loop: asyncio.AbstractEventLoop | None = None
    """The loop that will write what waits in the stream's buffer."""

    def emit(self, record: logging.LogRecord) -> None:
        """Put a line into the stream's buffer, and see to it that it is written."""
        try:
            self.stream.write(self.format(record) + self.terminator)
            loop = _find_loop() if record.levelno < logging.WARNING else None
            if loop is None:
                self.flush()
            elif loop is not self._loop:
                self._loop = loop
                loop.call_soon(self._write, record)
        except Exception:  # noqa: BLE001 - as every handler of the standard library: no line breaks what it tells of
            self.handleError(record)

    def _write(self, record: logging.LogRecord) -> None:
        self._loop = None
        try:
            self.flush()
        except Exception:  # noqa: BLE001 - asyncio would log it, and that line would fail, too
            self.handleError(record)


class _RotatingFile(RotatingFileHandler):
    """Asks the open file for its size. As it comes, the handler asks the file system, and seeks, before every line."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - the standard library's name
        """Return whether the line would make the file larger than it may be."""
        if self.stream is None:
            self.stream = self._open()
        size_bytes = os.fstat(self.stream.fileno()).st_size  # every line is flushed, so this is all of it
        return size_bytes + len(self.format(record).encode()) + len(self.terminator) > self.maxBytes


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
        processors=[structlog.contextvars.merge_contextvars, _build_renderer(service)],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=_Carrier,
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger whose lines carry `name`; it follows `configure_logging` even when that comes later."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name))


def _build_renderer(service: str) -> Processor:
    """Return the one processor that makes a line of an event: one, because structlog's price is per processor."""

    def render(logger: WrappedLogger, level: str, event: EventDict) -> str:
        record = event.pop("_record", logger)  # a library's record, or our own carrier: both have a name
        event.pop("_from_structlog", None)
        if "exc_info" in event:  # text only: tracebacks with local variables would carry secrets
            event = structlog.processors.format_exc_info(logger, level, event)
        head = {
            "timestamp": datetime.now(UTC),
            "level": level,
            "event": event.pop("event"),
            "logger": record.name,
            "service": service,
        }
        return _render({**head, **event})

    return render


def _build_formatter(service: str) -> logging.Formatter:
    return _Formatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ExtraAdder(allow=JOURNEY_KEYS),
        ],
        processors=[_build_renderer(service)],
    )


def _build_handler(settings: LogSettings) -> logging.Handler:
    if settings.file is None:
        return _Output(sys.stdout)
    try:
        handler = _RotatingFile(
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


def _find_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _render(event: dict[str, Any]) -> str:
    if not SECRET_KEYS.isdisjoint(event):
        event |= dict.fromkeys(SECRET_KEYS & event.keys(), HIDDEN)
    line = _encode(event)
    return _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", line) if "://" in line and "@" in line else line


def _encode(event: Mapping[str, Any]) -> str:
    try:
        return _encoder.encode(event).decode()
    except (
        TypeError,
        ValueError,
        RecursionError,
    ):  # keys that are no strings, lone surrogates: a log line never raises
        return json.dumps({str(key): _describe(value) for key, value in event.items()})


def _describe(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)
