"""The suite's child processes: killed, stopped and resumed on purpose, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

LOOK_SECONDS = 0.05
TESTS = Path(__file__).parent.parent


class Process:
    """One `module words` as a child that dies with this process; its output goes to a file."""

    def __init__(self, module: str, words: Sequence[str], log_path: Path) -> None:
        self.log_path = log_path
        self._module = module
        self._words = words
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tocsin_cli.processes.bound", str(os.getpid()), self._module, *self._words),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    async def wait_for_output(self, text: bytes, *, timeout_seconds: float) -> None:
        """Return once it has written `text`. Raise RuntimeError if it ends before, TimeoutError if it takes longer."""
        async with asyncio.timeout(timeout_seconds):
            while text not in self.log_path.read_bytes():
                if self.exit_code is not None:
                    raise RuntimeError(f"{self._module} ended with {self.exit_code}: see {self.log_path}")
                await asyncio.sleep(LOOK_SECONDS)

    @property
    def exit_code(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._running.returncode

    async def terminate(self, *, timeout_seconds: float) -> int:
        """Ask it to end as kubelet does, kill it if it takes longer; return its exit code."""
        self._signal(signal.SIGTERM)
        try:
            return await self.wait(timeout_seconds=timeout_seconds)
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """End it as a crash does; return its exit code."""
        self._signal(signal.SIGKILL)
        return await self._running.wait()

    async def wait(self, *, timeout_seconds: float | None = None) -> int:
        """Return its exit code once it has ended. Raise TimeoutError if that takes longer than it may."""
        return await asyncio.wait_for(self._running.wait(), timeout_seconds)

    async def freeze(self, seconds: float) -> None:
        """Stop it by SIGSTOP, and let it go on as if nothing had happened."""
        self._signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._signal(signal.SIGCONT)

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self._module} was not started")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        if self._running.returncode is None:
            self._running.send_signal(number)
