"""Whether a member still finds the coordinator of its group, by librdkafka's own statistics.

A client that lost its coordinator asks the brokers for it until it is told. Now and then one stops asking (2.16, under
KIP-848, after a broker had hung for longer than a session): it joins nothing from then on, and nothing but a new client
helps. An error would have been the better witness, but none is raised: the statistics are all that shows it.
"""

from __future__ import annotations

from tocsin_core.client_statistics import Statistics

WITHOUT_SECONDS = 60.0
"""How long a client may look for its coordinator while a broker answers; a coordinator moves within a few seconds."""


class CoordinatorWatch:
    """How long a client has been without a coordinator although a broker was there to ask."""

    def __init__(self) -> None:
        self._since: float | None = None

    def note(self, statistics: Statistics, now: float) -> None:
        """Take note of the statistics at this moment (seconds of any steady clock)."""
        if statistics.has_coordinator or not statistics.is_connected:
            self._since = None
        elif self._since is None:
            self._since = now

    def is_astray(self, now: float) -> bool:
        """Return whether the client has looked for longer than it can take to find one."""
        return self._since is not None and now - self._since >= WITHOUT_SECONDS

    def begin_again(self) -> None:
        """Forget what an earlier client met."""
        self._since = None
