"""Whether a long run came to rest: memory and every container, the last quarter against the second. Pure.

The first quarter is left out: caches fill, pools grow to their size. Medians, because a census may fall into a burst.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chaos.census import Census

FLAT = 0.05
SLACK_ENTRIES = 64
"""What a container may grow by all the same: what is under way comes and goes."""


@dataclass(frozen=True)
class Verdict:
    """What became of one process over its run."""

    rss_before_bytes: float
    rss_after_bytes: float
    objects_ratio: float
    growing: dict[str, tuple[float, float]]
    """Containers that hold more than they did, by their path: before and after."""

    @property
    def rss_ratio(self) -> float:
        """Return the resident memory of the last quarter over that of the second."""
        return self.rss_after_bytes / self.rss_before_bytes

    @property
    def is_flat(self) -> bool:
        """Return whether memory stayed within five percent and no container grew."""
        return abs(self.rss_ratio - 1.0) <= FLAT and not self.growing


def judge_flatness(censuses: Sequence[Census]) -> Verdict:
    """Return how the last quarter compares with the second. Raise ValueError if there are fewer than eight."""
    if len(censuses) < 8:
        raise ValueError(f"{len(censuses)} censuses: eight are the least that quarters can be taken of")
    quarter = len(censuses) // 4
    before, after = censuses[quarter : 2 * quarter], censuses[-quarter:]

    def compare(read: Callable[[Census], float]) -> tuple[float, float]:
        return statistics.median(map(read, before)), statistics.median(map(read, after))

    paths = {path for census in censuses for path in census.sizes}
    sizes = {path: compare(lambda census, path=path: census.sizes.get(path, 0)) for path in sorted(paths)}  # type: ignore[misc]
    rss_before, rss_after = compare(lambda census: census.rss_bytes)
    objects_before, objects_after = compare(lambda census: census.objects)
    return Verdict(
        rss_before,
        rss_after,
        objects_after / objects_before,
        {path: pair for path, pair in sizes.items() if pair[1] > pair[0] * (1 + FLAT) + SLACK_ENTRIES},
    )
