"""How long records wait for company before they go to Kafka: not at all while little comes, milliseconds under load.

librdkafka puts one partition into a produce request, so a request costs client and broker about the same whether it
carries one record or ten, and twelve partitions share what a moment brings. A fixed `linger.ms` is either too short
for that under load or a delay for everybody who sends little. Holding back until the last answer is here (Nagle) was
tried: it follows the broker's speed rather than the load, and at 64 clients no more records shared a request.
"""

from __future__ import annotations

GATHER_SECONDS = 0.004
"""How long the first of those that gather waits at most: what load costs in latency, and a window of the count. At
5,000 a second, 10 ms spared the broker a quarter of its work more, and were most of what a notification waited for."""
BUSY_PER_SECOND = 3_000.0
"""From this rate on records wait. Below, a window would bring hardly more than one record per partition."""
FULL_RECORDS = 128
"""So many are worth a request per partition and go at once, even in the midst of a long turn of the loop: when 256
clients were read before anything was handed over, the broker idled meanwhile, and throughput fell by a third."""
QUIET_SECONDS = 0.001
"""No record for so long, and none unanswered: everybody waits for us, so nobody else will come."""


class Gathering:
    """Says when it is time. Knows no clock: `now` and the other moments are seconds of the same one."""

    __slots__ = ("_began_at", "_counted", "_is_busy")

    def __init__(self, now: float) -> None:
        self._began_at = now
        self._counted = 0
        self._is_busy = False

    @property
    def is_busy(self) -> bool:
        """Return whether records come so fast that they are to wait for company."""
        return self._is_busy

    def is_due(self, gathered: int, unanswered: int, *, first_at: float, last_at: float, now: float) -> bool:
        """Return whether what gathered between those moments is to go now, while so many are with Kafka already."""
        if not self._is_busy or gathered >= FULL_RECORDS or now - first_at >= GATHER_SECONDS:
            return True
        return not unanswered and now - last_at >= QUIET_SECONDS

    def count(self, gone: int, *, now: float) -> None:
        """Count records that went, and judge the rate at the end of every window."""
        self._counted += gone
        elapsed = now - self._began_at
        if elapsed >= GATHER_SECONDS:
            self._is_busy = self._counted >= BUSY_PER_SECOND * elapsed
            self._began_at, self._counted = now, 0
