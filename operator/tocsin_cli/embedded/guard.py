"""A watcher that ends a server when the process that started it is gone, however it went.

    python -m tocsin_cli.embedded.guard PID [DIRECTORY]

The starter holds the other end of this process's standard input: when the starter dies, even by SIGKILL, the kernel
closes that pipe. The server is then asked to stop, after ten seconds killed, and its temporary directory removed.
`PR_SET_PDEATHSIG` was refused: it fires when the starting *thread* ends, which kills a server started from a worker
thread, and it exists on Linux only.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_SECONDS = 10.0
POLL_SECONDS = 0.2


def start_guard(pid: int, scratch: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a watcher over `pid`; it removes `scratch` when it had to end the server itself."""
    words = [sys.executable, "-S", "-E", __file__, str(pid), *([str(scratch)] if scratch else [])]
    return subprocess.Popen(  # noqa: S603 - our own words
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )


def stop_guard(guard: subprocess.Popen[bytes]) -> None:
    """End the watcher without touching what it watched."""
    guard.kill()
    guard.wait()
    if guard.stdin:
        guard.stdin.close()


def main() -> int:
    """Wait until the starter or the server is gone; in the first case end the server. Return 0."""
    pid = int(sys.argv[1])
    if _starter_dies_first(pid):
        _end(pid)
        for scratch in sys.argv[2:]:
            shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _starter_dies_first(pid: int) -> bool:
    while _is_alive(pid):
        if select.select([0], [], [], POLL_SECONDS)[0]:  # nothing is ever written: readable means closed
            return True
    return False


def _end(pid: int) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    _signal(pid, signal.SIGTERM)
    _signal(pid, signal.SIGCONT)  # a stopped server cannot hear SIGTERM
    while _is_alive(pid) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _signal(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    return _signal(pid, 0)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
