"""Reading the pods' own counters, from the pods directly.

The API server's proxy was refused: it needs `pods/proxy`, which is the right to reach any port of any pod. Addresses
are listed when a Deployment has moved and not watched, because a healthy fleet's pods would fill the operator's memory.
A pod that does not answer is left alone for a while, so that a node that died costs one timeout and not one each pass.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import structlog

from tocsin_operator.children.config import HEALTH_PORT
from tocsin_operator.children.naming import Role, render_selector
from tocsin_operator.errors import KubernetesFailure
from tocsin_operator.model import Pipeline

REQUEST_SECONDS = 1.0
SILENT_SECONDS = 60.0  # a pod that did not answer is asked again after
LIST_SECONDS = 300.0  # and addresses are listed again at least this often
MOST_REQUESTS = 64
MOST_BYTES = 1_000_000

log = structlog.get_logger(__name__)


class PodLister(Protocol):
    """The part of the Kubernetes API that is needed here."""

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[dict[str, Any]]:
        """Return the objects of a namespace."""


class PageReader:
    """Fetches a pod's metrics page; `None` where it does not answer in time or not as it should."""

    def __init__(self, *, port: int = HEALTH_PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None
        self._requests = asyncio.Semaphore(MOST_REQUESTS)

    async def read(self, address: str) -> str | None:
        """Return the page at `http://address:port/metrics`."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address  # noqa: PLR2004 - IPv6
        try:
            async with (
                self._requests,
                self._session.get(f"http://{host}:{self._port}/metrics", allow_redirects=False) as answer,
            ):
                if answer.status != 200:  # noqa: PLR2004 - HTTP's own
                    return None
                return (await answer.content.read(MOST_BYTES)).decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


@dataclass(frozen=True, slots=True)
class _Listing:
    version: str
    at_seconds: float
    addresses: Mapping[str, str]


class PodPages:
    """The metrics pages of roles' ready pods."""

    def __init__(self, api: PodLister, reader: PageReader, *, now: Callable[[], float]) -> None:
        self._api = api
        self._reader = reader
        self._now = now
        self._listings: dict[tuple[str, Role], _Listing] = {}
        self._silent_since: dict[str, float] = {}

    async def read(self, pipeline: Pipeline, role: Role, *, version: str) -> Mapping[str, str]:
        """Return the page of each pod that answers, by name; `version` is the Deployment's, and new ones list again."""
        addresses = await self._list(pipeline, role, version)
        asked = {pod: address for pod, address in addresses.items() if not self._is_silent(address)}
        pages = await asyncio.gather(*(self._reader.read(address) for address in asked.values()))
        now_seconds = self._now()
        for address, page in zip(asked.values(), pages, strict=True):
            if page is None:
                self._silent_since[address] = now_seconds
        return {pod: page for pod, page in zip(asked, pages, strict=True) if page is not None}

    async def close(self) -> None:
        """Close the connections."""
        await self._reader.close()

    def forget_others(self, keys: set[str]) -> None:
        """Forget the pods of pipelines that are gone, and what was silent long ago."""
        self._listings = {name: listing for name, listing in self._listings.items() if name[0] in keys}
        self._silent_since = {address: at for address, at in self._silent_since.items() if self._is_silent(address)}

    def _is_silent(self, address: str) -> bool:
        since_seconds = self._silent_since.get(address)
        return since_seconds is not None and self._now() - since_seconds < SILENT_SECONDS

    async def _list(self, pipeline: Pipeline, role: Role, version: str) -> Mapping[str, str]:
        known = self._listings.get((pipeline.key, role))
        if known is not None and known.version == version and self._now() - known.at_seconds < LIST_SECONDS:
            return known.addresses
        try:
            bodies = await self._api.list("Pod", pipeline.namespace, labelSelector=render_selector(pipeline, role))
        except KubernetesFailure as error:
            log.info("pods not listed", pipeline=pipeline.key, error=str(error))
            return known.addresses if known is not None else {}
        addresses = {body["metadata"]["name"]: body["status"]["podIP"] for body in bodies if _is_readable(body)}
        self._listings[pipeline.key, role] = _Listing(version, self._now(), addresses)
        return addresses


def _is_readable(body: Mapping[str, Any]) -> bool:
    """Return whether a pod is ready and not on its way out."""
    status = body.get("status", {})
    is_ready = any(
        each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions", [])
    )
    return is_ready and bool(status.get("podIP")) and "deletionTimestamp" not in body["metadata"]
