"""The maximum, always: what it misses, no number of pods keeps."""

from __future__ import annotations

from tocsin_cli.simulate.plant import Look
from tocsin_cli.simulate.policies.base import Terms


class Pinned:
    """Never moves."""

    interval_seconds = 60

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    def decide(self, look: Look) -> int:
        """Return the maximum, or the partitions if those are fewer."""
        return min(self._terms.max_replicas, look.partitions)
