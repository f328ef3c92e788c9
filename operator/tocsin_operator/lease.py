"""One operator at a time: a Lease, taken before anything is watched, and lost only with the process.

The official client's election does the protocol. Around it stands what it leaves to its user: requests that end before
the Lease would (its default is five minutes, in which two would lead), an API server that is away for a moment (it
would let the error through and resign), and a Lease given back at an orderly stop, so that the next one starts at once.
kopf's own peering was refused: it pauses on annotations and locks nothing. A Lease does not fence either, which is why
everything the operator writes may be written twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import aiohttp
import structlog
from kubernetes.aio.client import ApiClient, ApiException, CoordinationV1Api, V1Lease, V1ObjectMeta
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

log = structlog.get_logger(__name__)

# What the API server, or the way to it, may do for a moment without costing anybody the Lease.
PASSING = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Which Lease, whose, and for how many whole seconds; the proportions are client-go's (15, 10, 2)."""

    namespace: str
    name: str
    identity: str
    lease_seconds: int = 15

    @property
    def renew_seconds(self) -> float:
        """Return how long renewing may fail before the leader resigns: less than it takes others to take over."""
        return self.lease_seconds * 2 / 3

    @property
    def retry_seconds(self) -> float:
        """Return the pause between two tries."""
        return max(1.1, self.lease_seconds / 7.5)


class PatientLeaseLock(LeaseLock):
    """A Lease whose requests end in time, and whose failures are answers rather than exceptions."""

    def __init__(self, terms: LeaseTerms, client: ApiClient) -> None:
        super().__init__(terms.name, terms.namespace, terms.identity, client)
        self._timeout_seconds = terms.renew_seconds / 2

    async def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        """Return whether the Lease could be read, and its record or the error."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await super().get(name, namespace)
        except PASSING as error:
            return False, ApiException(status=0, reason=f"{type(error).__name__}: {error}")

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        """Return whether the Lease could be made. Not the library's own, which asks for it in a way its API refuses."""
        body = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        return await self._try(self.api_instance.create_namespaced_lease(namespace, body))

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        """Return whether the Lease could be renewed."""
        return await self._try(super().update(name, namespace, updated_record))

    async def _try(self, write: Awaitable[Any]) -> bool:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await write is not False
        except (ApiException, *PASSING) as error:
            log.warning("lease not written", lease=self.name, error=repr(error))
            return False


async def lead(
    client: ApiClient, terms: LeaseTerms, work: Callable[[], Awaitable[None]], *, on_lost: Callable[[], None]
) -> None:
    """Wait for the Lease, then do `work`; give the Lease back when it ends, fails or is cancelled.

    `on_lost` is called at the moment the Lease is gone and must end the process: somebody else is about to lead, and
    whatever is still under way here would write beside them.
    """
    has_lease = asyncio.Event()
    election = asyncio.create_task(_elect(client, terms, has_lease), name="election")
    election.add_done_callback(partial(_tell_lost, on_lost))
    log.info("waiting for the lease", lease=terms.name, namespace=terms.namespace, identity=terms.identity)
    try:
        await has_lease.wait()
        log.info("leading", lease=terms.name, namespace=terms.namespace, identity=terms.identity)
        await work()
    finally:
        election.cancel()
        await asyncio.gather(election, return_exceptions=True)
        await release(client, terms)


def _tell_lost(on_lost: Callable[[], None], election: asyncio.Task[None]) -> None:
    if election.cancelled():
        return
    if error := election.exception():
        log.error("the election failed", error=repr(error), exc_info=error)
    on_lost()


async def _elect(client: ApiClient, terms: LeaseTerms, has_lease: asyncio.Event) -> None:
    async def start() -> None:
        has_lease.set()

    async def stop() -> None:
        log.error("lease lost: it could not be renewed in time", lease=terms.name, namespace=terms.namespace)

    config = Config(
        PatientLeaseLock(terms, client),
        lease_duration=terms.lease_seconds,
        renew_deadline=terms.renew_seconds,
        retry_period=terms.retry_seconds,
        onstarted_leading=start,
        onstopped_leading=stop,
    )
    await LeaderElection(config).run()


async def release(client: ApiClient, terms: LeaseTerms) -> None:
    """Give the Lease back if it is ours; whoever waits takes it at the next try. Failing to is no error: it expires."""
    api = CoordinationV1Api(client)
    try:
        async with asyncio.timeout(terms.renew_seconds / 2):
            lease = await api.read_namespaced_lease(terms.name, terms.namespace)
            if lease.spec is None or lease.spec.holder_identity != terms.identity:
                return
            lease.spec.holder_identity = None
            lease.spec.renew_time = datetime.now(UTC)
            await api.replace_namespaced_lease(terms.name, terms.namespace, lease)
            log.info("lease given back", lease=terms.name, namespace=terms.namespace)
    except (ApiException, *PASSING) as error:
        log.warning("lease not given back", lease=terms.name, error=repr(error))
