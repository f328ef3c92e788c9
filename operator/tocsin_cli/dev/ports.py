"""The usual ports where they are free. Any other port is the process's own choice, and its log line says which."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"
ANY = 0


def prefer_port(port: int) -> int:
    """Return `port` if nobody on this machine holds it at this moment, else 0: let the process choose.

    Somebody may take it before the process does. The process then ends by it, and the next start lets it choose.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return ANY
    return port
