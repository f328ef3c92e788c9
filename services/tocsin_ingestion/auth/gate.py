"""The gate in front of the API: who calls, whether they may, and how much.

    headers ──► checker (API keys, or tokens) ──► Caller ──► may post? ──► Grant: one item claimed ──► body is read
                    │ has to wait for the issuer's keys            └─► a batch claims its other items once parsed
                    └─► the routes, which can await

All of it happens before a byte of the body is read. A request that the hot path begins and hands over to the routes
takes its Grant along, so that nobody pays twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from tocsin_ingestion.auth.credentials import forbid
from tocsin_ingestion.auth.limits import Bucket, Limiter
from tocsin_ingestion.problems import RATE_LIMITED, Problem

Item = TypeVar("Item")
GRANT = "tocsin.grant"
"""Where the hot path leaves a Grant in the scope's state for the routes."""


class Caller(NamedTuple):
    """Somebody whose credential was good."""

    name: str
    """A key's name, or a token's subject: what rate limits count by."""
    missing_scope: str = ""
    """The scope that posting takes and this caller lacks, "" if nothing is missing."""
    listens_as: str | None = None
    """The one user as whom this caller may listen, None for anybody: API keys are for services, not for people."""
    expires_at: float | None = None
    """When the credential ends, in seconds since 1970."""
    key_digest: bytes = b""
    """Of an API key, by which it is noticed that the key was revoked; b"" for what ends by itself."""


class Checker(Protocol):
    """One way to know a caller."""

    schemes: Mapping[str, Any]
    """How OpenAPI describes it: security schemes, any one of which is enough."""

    def try_identify(self, authorization: bytes | None, api_key: bytes | None) -> Caller | None:
        """Return who calls, None if that cannot be said without waiting. Raise Problem (401, 503)."""
        ...

    async def identify(self, authorization: bytes | None, api_key: bytes | None) -> Caller:
        """Return who calls. Raise Problem (401, 503)."""
        ...

    def still_knows(self, caller: Caller) -> bool:
        """Return whether a caller who was let in is still welcome, as far as that shows without the credential."""
        ...

    def check(self) -> str:
        """Return why nobody can be let in, "" if somebody can."""
        ...

    async def refresh(self) -> None:
        """Look whether the keys have changed, if that is due. Never raises for what is expected to fail."""
        ...


class Grant:
    """What one request may send."""

    __slots__ = ("_bucket", "_claimed", "_granted", "caller")

    def __init__(self, caller: Caller, bucket: Bucket | None) -> None:
        self.caller = caller
        self._bucket = bucket
        self._claimed = self._granted = 0

    def claim(self, items: int) -> int:
        """Return how many of the request's items may be sent, counting those claimed before."""
        if self._bucket is None:
            return items
        if items > self._claimed:
            self._granted += self._bucket.take(items - self._claimed)
            self._claimed = items
        return self._granted

    def claim_first(self) -> None:
        """Claim the first item. Raise Problem (429) if there is none."""
        if self._bucket is not None and not self.claim(1):
            raise self.build_refusal()

    def limit(self, items: Sequence[Item | Problem]) -> list[Item | Problem]:
        """Return a batch's items, in whose place stands the 429 from the first on that may not be sent."""
        granted = self.claim(len(items))
        if granted == len(items):
            return list(items)
        return [*items[:granted], *[self.build_refusal()] * (len(items) - granted)]

    def build_refusal(self) -> Problem:
        """Return the 429, which says when to come back."""
        assert self._bucket is not None, "only a limit refuses"  # noqa: S101 - a programming error
        detail = (
            f"{self._bucket.per_second:g} notifications per second, and {self._bucket.burst} at once, are this "
            "caller's limit on each pod; this one was not stored. Repeat later."
        )
        return Problem(RATE_LIMITED, detail, retry_after_seconds=self._bucket.wait_seconds)

    def build_headers(self) -> list[tuple[str, str]]:
        """Return what the answer says about the limit; nothing where there is none."""
        return [] if self._bucket is None else self._bucket.build_headers()

    def write_headers(self) -> bytes:
        """Return the same as lines of HTTP/1.1, each behind its line end."""
        return b"" if self._bucket is None else self._bucket.write_headers()


class Gate:
    """Lets callers in. Used on the event loop only."""

    def __init__(self, checker: Checker, limiter: Limiter | None = None) -> None:
        self.checker = checker
        self._limiter = limiter

    def try_enter(self, authorization: bytes | None, api_key: bytes | None) -> Grant | None:
        """Return the grant for a request to post, None if that has to wait. Raise Problem (401, 403, 503)."""
        caller = self.checker.try_identify(authorization, api_key)
        return None if caller is None else self._grant(caller)

    async def enter(self, authorization: bytes | None, api_key: bytes | None) -> Grant:
        """Return the grant for a request to post. Raise Problem (401, 403, 503)."""
        return self._grant(await self.checker.identify(authorization, api_key))

    def _grant(self, caller: Caller) -> Grant:
        if caller.missing_scope:
            raise forbid(caller.missing_scope)
        return Grant(caller, None if self._limiter is None else self._limiter.find(caller.name))
