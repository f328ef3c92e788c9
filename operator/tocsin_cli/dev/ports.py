"""Ports for the processes: the usual ones where they are free, any free one where they are not."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def find_port(preferred: int = 0) -> int:
    """Return `preferred` if it can be bound on this machine, else a free port.

    Between asking and the child's binding somebody else may take it; the child then says so and is started again.
    """
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on this machine")


class PortBook:
    """Hands out ports and never the same one twice in a session, as a port found free may not be bound yet."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def take(self, preferred: int = 0) -> int:
        """Return a free port that was not handed out before."""
        port = find_port(preferred)
        while port in self._given:
            port = find_port()
        self._given.add(port)
        return port
