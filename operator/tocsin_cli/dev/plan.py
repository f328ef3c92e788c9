"""What one session is asked to do; the demo and the command line each make one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tocsin_cli.dev.profile import Profile
from tocsin_cli.resource.manifest import Manifest

CountReceipts = Callable[[], Awaitable[Mapping[str, int]]]


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """Somebody who counts what one channel brings, by notification id, and is believed over the sender's log."""

    channel: str
    count: CountReceipts


@dataclass(frozen=True, kw_only=True)
class Input:
    """Lines to post; None is standard input."""

    path: Path | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A session: what to run, on what, under which load, and how it ends."""

    title: str
    manifest: Manifest
    brokers: tuple[str, ...] = ()
    """Kafka's addresses; none starts an embedded one."""
    redis_url: str | None = None
    input: Input | None = None
    profile: Profile | None = None
    seconds: float | None = None
    come_in_seconds: float = 0.0
    """How long to wait after the load until the consumers are few again."""
    receiver: Receiver | None = None
    log: Path | None = None
    """Where every line that a process writes is kept."""
