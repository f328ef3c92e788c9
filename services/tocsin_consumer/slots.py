"""Who may send now: the global limit of concurrent sends, shared so that no channel can take it all.

With one plain semaphore, a provider that hangs would end up holding every slot and the other channels would wait for
its timeouts. So each channel has a few slots that nobody else may use, and the rest belong to whoever comes first, the
channel that uses the fewest before the others (`lanes`).
With one channel there is nothing to reserve and the whole limit is its own. What belongs to no channel (dead letters
of records that nobody can read) takes from the shared ones. A channel may also have a limit of its own, for a provider
that takes fewer at a time.

The slots also keep the busy time, in slot-seconds: what capacity is measured with. Waiting (for a lane's turn, for a
backoff to pass) holds no slot and is not busy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tocsin_core.commits import NO_CHANNEL


class Slots:
    """The slots of one process."""

    def __init__(self, concurrency: int, limits: Mapping[str, int], *, clock: Callable[[], float]) -> None:
        """Share `concurrency` among the channels, of which each may have no more than its limit."""
        is_alone = len(limits) == 1
        share = concurrency if is_alone else concurrency // (2 * len(limits))
        self.guaranteed = {**{name: min(limit, share) for name, limit in limits.items()}, NO_CHANNEL: 0}
        """How many slots each channel gets however busy the others are; with very few slots it may be none."""
        self._reserved = dict.fromkeys(self.guaranteed, 0) if is_alone else self.guaranteed
        self._limits = {**limits, NO_CHANNEL: concurrency}
        self._used = dict.fromkeys(self._reserved, 0)
        self._shared = concurrency - sum(self._reserved.values())
        self._in_use = 0
        self._clock = clock
        self._busy_seconds = 0.0
        self._counted_until = clock()

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the channels that share these slots, and the name of what belongs to none."""
        return tuple(self._used)

    @property
    def in_use(self) -> int:
        """Return how many slots are taken."""
        return self._in_use

    @property
    def busy_seconds(self) -> float:
        """Return the slot-seconds up to now, those of sends under way among them."""
        self._count()
        return self._busy_seconds

    def count_used(self, channel: str) -> int:
        """Return how many slots the channel has taken."""
        return self._used[channel]

    def is_free(self, channel: str) -> bool:
        """Return whether the channel may take a slot now: one of its own, or a shared one."""
        used = self._used[channel]
        return used < self._reserved[channel] or (self._shared > 0 and used < self._limits[channel])

    def take(self, channel: str) -> None:
        """Take a slot. Raise RuntimeError if none is free for the channel."""
        if not self.is_free(channel):
            raise RuntimeError(f"no slot is free for channel {channel!r}")
        self._count()
        self._shared -= self._used[channel] >= self._reserved[channel]
        self._used[channel] += 1
        self._in_use += 1

    def release(self, channel: str) -> None:
        """Give a slot back."""
        self._count()
        self._used[channel] -= 1
        self._in_use -= 1
        self._shared += self._used[channel] >= self._reserved[channel]

    def _count(self) -> None:
        now = self._clock()
        self._busy_seconds += self._in_use * (now - self._counted_until)
        self._counted_until = now
