"""How much each caller may send: a token bucket per key or subject, in this process.

Per pod, and said so: a shared count would put a round trip to a store before every notification, and the store's pauses
into every answer. A bucket fills at `per_second` up to `burst`. What has been idle for `burst / per_second` seconds is
full, so forgetting it loses nothing; the bound on how many are kept therefore only matters to those who call at once.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CALLERS = 50_000
FIELDS = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")
_LINES = "".join(f"\r\n{name}: %d" for name in FIELDS).encode()

Clock = Callable[[], float]


class Bucket:
    """What one caller may still send. Starts full."""

    __slots__ = ("_clock", "_level", "_seen_at", "burst", "per_second")

    def __init__(self, per_second: float, burst: int, clock: Clock) -> None:
        self.per_second = per_second
        self.burst = burst
        self._clock = clock
        self._level = float(burst)
        self._seen_at = clock()

    def take(self, wanted: int) -> int:
        """Return how many of `wanted` may be sent now, and take them."""
        self._fill()
        granted = min(wanted, int(self._level))
        self._level -= granted
        return granted

    @property
    def wait_seconds(self) -> int:
        """In how many whole seconds the next may be sent; at least one, for a client that has just been refused."""
        self._fill()
        return max(1, math.ceil((1 - self._level) / self.per_second))

    def build_headers(self) -> list[tuple[str, str]]:
        """Return the RateLimit fields: the burst, what is left of it, and the seconds until it is whole again."""
        return [(name, str(value)) for name, value in zip(FIELDS, self._read(), strict=True)]

    def write_headers(self) -> bytes:
        """Return the same as lines of HTTP/1.1, each behind its line end: half the cost, for every answer."""
        return _LINES % self._read()

    def _read(self) -> tuple[int, int, int]:
        self._fill()
        return self.burst, int(self._level), math.ceil((self.burst - self._level) / self.per_second)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self.burst, self._level + (now - self._seen_at) * self.per_second)
        self._seen_at = now


class Limiter:
    """The buckets of all callers; those that called last are kept."""

    def __init__(
        self,
        per_second: float,
        burst: int,
        *,
        max_callers: int = MAX_CALLERS,
        clock: Clock = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._max_callers = max_callers
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def find(self, caller: str) -> Bucket:
        """Return a caller's bucket."""
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = Bucket(self._per_second, self._burst, self._clock)
            if len(self._buckets) > self._max_callers:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller)
        return bucket
