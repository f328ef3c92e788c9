"""Whether a Redis can be trusted with claims: it must not evict them, and should not lose them.

An evicted claim is a duplicate that nobody counts, so an evicting server is refused: nothing is sent until its policy
is right, and readiness says what to set. A server without an append-only file is only warned about: what it forgets is
noticed, and what is sent again is counted. Managed servers often forbid CONFIG, some INFO: whichever answers is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

NOEVICTION = "noeviction"
CAUSES: dict[type[Exception], str] = {
    AuthenticationError: "refuses our credentials: correct username and password in redis.credentialsSecretRef",
    NoPermissionError: "forbids a command: allow our user EVAL, EVALSHA, GET, SET, DEL, INCRBY and TIME on tocsin:*",
    OutOfMemoryError: "is full: raise its maxmemory; claims are kept as long as their notifications are worth sending",
    ReadOnlyError: "is a replica, which takes no writes: name the primary in redis.url",
}


class StoreFacts(NamedTuple):
    """What a server says about itself; None where it does not say."""

    eviction_policy: str | None = None
    max_memory_bytes: int | None = None
    is_append_only: bool | None = None


async def observe_store(redis: Redis) -> StoreFacts:
    """Ask the server how it keeps what it is given. Raise RedisError or OSError if it does not answer."""
    try:
        return read_info(await redis.info())
    except ResponseError:
        pass
    try:
        return read_config(await redis.config_get("maxmemory*") | await redis.config_get("appendonly"))
    except ResponseError:
        return StoreFacts()


def read_info(info: Mapping[str, Any]) -> StoreFacts:
    """Return the facts in the answer to INFO."""
    limit = info.get("maxmemory")
    append_only = info.get("aof_enabled")
    return StoreFacts(
        eviction_policy=info.get("maxmemory_policy"),
        max_memory_bytes=None if limit is None else int(limit),
        is_append_only=None if append_only is None else bool(append_only),
    )


def read_config(config: Mapping[str | None, str | None]) -> StoreFacts:
    """Return the facts in the answer to CONFIG GET."""
    limit = config.get("maxmemory")
    append_only = config.get("appendonly")
    return StoreFacts(
        eviction_policy=config.get("maxmemory-policy"),
        max_memory_bytes=None if limit is None else int(limit),
        is_append_only=None if append_only is None else append_only == "yes",
    )


def decide_refusal(facts: StoreFacts) -> str:
    """Return why the store cannot be trusted and what to do, or "". Without a memory limit nothing is ever evicted."""
    if facts.eviction_policy in (None, NOEVICTION) or facts.max_memory_bytes == 0:
        return ""
    return (
        f"the claim store evicts keys (maxmemory-policy {facts.eviction_policy}), so what was sent could be "
        "forgotten and sent again unseen: set maxmemory-policy noeviction, or name another server in redis.url"
    )


def decide_advice(facts: StoreFacts) -> str:
    """Return what would make the store safer, or ""."""
    if facts.eviction_policy is None:
        return (
            "it does not say whether it evicts keys: make sure of maxmemory-policy noeviction, or allow our user INFO"
        )
    if facts.is_append_only is False:
        return "it keeps no append-only file, so a restart may forget what was sent: set appendonly yes"
    return ""


def explain(error: Exception) -> str:
    """Return what is wrong with the store and what to do, without its address, which may carry a password."""
    for kind, cause in CAUSES.items():
        if isinstance(error, kind):
            return f"the claim store {cause}"
    if isinstance(error, ResponseError):
        return f"the claim store refuses: {error}"
    return f"the claim store does not answer ({type(error).__name__}): check redis.url and that the server runs"
