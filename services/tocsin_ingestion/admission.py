"""How much may be on its way at once: the bounds in front of Kafka's queue and of our memory.

What arrives faster than Kafka confirms has to be refused, and at once: a client told 503 goes elsewhere or backs off,
one that waits is lost together with everybody behind it. The bounds of librdkafka's queue lie behind these, as a
second line; uvicorn's `limit_concurrency` was refused, because it counts idle connections and says no Retry-After.
Bodies count as they arrive: what was only declared would let a few idle connections refuse everybody else. Knows no
clock and no I/O.
"""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple, Protocol, Self

from tocsin_core.message import MAX_ID_CHARACTERS
from tocsin_core.outgoing import OVERHEAD_BYTES
from tocsin_ingestion.problems import BUSY, KAFKA_UNAVAILABLE, Problem

MAX_KEY_BYTES = 4 * MAX_ID_CHARACTERS
STALLED_AFTER_SECONDS = 3.0
"""While the oldest send waits longer than this, new ones are refused: they would only wait behind it."""


class Limits(NamedTuple):
    """What may wait for Kafka, in notifications and bytes, and how many bytes of bodies may be in memory."""

    max_in_flight: int = 10_000
    max_in_flight_bytes: int = 25_165_824
    max_bodies_bytes: int = 33_554_432


DEFAULT_LIMITS = Limits()


class Load(Protocol):
    """What waits for Kafka."""

    @property
    def in_flight(self) -> int:
        """How many records wait for Kafka."""
        ...

    @property
    def in_flight_bytes(self) -> int:
        """How large they are together."""
        ...

    @property
    def oldest_in_flight_seconds(self) -> float:
        """How long the oldest of them has waited."""
        ...


class Admission:
    """Says whether there is room. Used on the event loop only."""

    def __init__(self, load: Load, limits: Limits = DEFAULT_LIMITS) -> None:
        self._load = load
        self._limits = limits
        self._bodies_bytes = 0

    def check_room(self) -> None:
        """Raise Problem (503) if not one more may be handed to Kafka for the moment."""
        load, limits = self._load, self._limits
        if load.in_flight >= limits.max_in_flight:
            raise Problem(BUSY, f"{limits.max_in_flight} notifications wait for Kafka already. Repeat later.")
        if load.in_flight_bytes >= limits.max_in_flight_bytes:
            raise Problem(BUSY, f"{limits.max_in_flight_bytes} bytes wait for Kafka already. Repeat later.")

    def has_room_for(self, count: int, largest_bytes: int) -> bool:
        """Return whether so many may be handed to Kafka one after the other, none of them with more bytes than that.

        False says nothing: there may be room for them all if the others are smaller.
        """
        load, limits = self._load, self._limits
        size_bytes = count * (largest_bytes + MAX_KEY_BYTES + OVERHEAD_BYTES)
        return (
            load.in_flight + count <= limits.max_in_flight
            and load.in_flight_bytes + size_bytes <= limits.max_in_flight_bytes
        )

    def find_stall(self) -> Problem | None:
        """Return why nothing at all is taken while Kafka does not confirm; asked once per request, not per item."""
        if self._load.oldest_in_flight_seconds > STALLED_AFTER_SECONDS:
            return Problem(KAFKA_UNAVAILABLE, "Kafka is not confirming at present; nothing was stored. Repeat later.")
        return None

    def hold(self, body_bytes: int) -> None:
        """Make room for a body, or for more of one, until `release`. Raise Problem (503) if there is none."""
        if self._bodies_bytes + body_bytes > self._limits.max_bodies_bytes:
            raise Problem(BUSY, "Too many bodies are being read already; nothing was stored. Repeat later.")
        self._bodies_bytes += body_bytes

    def release(self, body_bytes: int) -> None:
        """Give back what was held."""
        self._bodies_bytes -= body_bytes


class Room:
    """The room that one body takes, given back at the end of a `with`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.release(self._bytes)

    def grow_to(self, body_bytes: int) -> None:
        """Take as much room as that, if it is more than before. Raise Problem (503) if there is none."""
        more = body_bytes - self._bytes
        if more > 0:
            self._admission.hold(more)
            self._bytes = body_bytes
