"""One child process: started, watched, started again after a crash, and stopped by SIGTERM so that it drains.

    STARTING ──ready──► READY ──stop()──► STOPPING ──exit──► STOPPED
        ▲                 │
        └── backoff ◄── exit that nobody asked for

Only `Child.run` changes the state; others read it and call `stop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from tocsin_core.settings import ENV_PREFIX

LINE_LIMIT_BYTES = 4 * 1024 * 1024
"""A log line may carry a whole message, in which JSON writes one character as six bytes or more."""
FIRST_BACKOFF_SECONDS = 0.5
LAST_BACKOFF_SECONDS = 15.0
HEALTHY_SECONDS = 30.0
"""After this long a crash counts as the first again."""
READY_POLL_SECONDS = 0.1
STDERR_LINES_KEPT = 20


class State(StrEnum):
    """Where a child is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Command(NamedTuple):
    """What to run: a module with `main(words)`, its words, and what its environment has beyond ours."""

    module: str
    words: Sequence[str]
    environment: Mapping[str, str]


class Watch(NamedTuple):
    """Who wants to know: every line of standard output, every remark about the child, and how to ask if it is ready."""

    on_line: Callable[[str, bytes], None]
    on_remark: Callable[[str], None]
    is_ready: Callable[[], Awaitable[bool]]


def backoff_seconds(crashes: int) -> float:
    """Return how long to wait before the next start, after this many crashes in a row (1 or more)."""
    return float(min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(crashes - 1, 16)))


class Child:
    """A process that is kept running until `stop` is called."""

    def __init__(self, name: str, build_command: Callable[[], Command], watch: Watch, *, drain_seconds: float) -> None:
        """Start the process as soon as the event loop runs; `build_command` is asked before every start."""
        self.name = name
        self.state = State.STARTING
        self.crashes = 0
        self.process_id: int | None = None
        self._build_command = build_command
        self._watch = watch
        self._drain_seconds = drain_seconds
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._last_stderr: deque[str] = deque(maxlen=STDERR_LINES_KEPT)
        self._task = asyncio.create_task(self._run(), name=f"child {name}")

    @property
    def last_words(self) -> str:
        """Return the last lines of standard error: what a child that cannot start has to say."""
        return "\n".join(self._last_stderr)

    async def wait_ready(self) -> None:
        """Return once the child answered that it is ready, for the first time."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Ask the child to drain, wait for it, kill it when it takes longer than it may. Safe to call twice."""
        self._stop.set()
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        in_a_row = 0
        while not self._stop.is_set():
            started = asyncio.get_running_loop().time()
            code = await self._run_once()
            if self._stop.is_set():
                break
            self.crashes += 1
            self.state = State.STARTING
            in_a_row = 1 if asyncio.get_running_loop().time() - started > HEALTHY_SECONDS else in_a_row + 1
            wait_seconds = backoff_seconds(in_a_row)
            self._watch.on_remark(f"{self.name} {_describe_exit(code)}; starting it again in {wait_seconds:g} s")
            await _wait_at_most(self._stop.wait(), wait_seconds)
        self.state = State.STOPPED

    async def _run_once(self) -> int:
        command = self._build_command()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tocsin_cli.processes.bound", str(os.getpid()), command.module, *command.words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_build_environment(command.environment),
            limit=LINE_LIMIT_BYTES,
            start_new_session=True,  # Ctrl-C is ours: children drain when we say so
        )
        self.process_id = process.pid
        readers = [asyncio.create_task(self._read_stdout(process)), asyncio.create_task(self._read_stderr(process))]
        ready = asyncio.create_task(self._await_ready())
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await self._drain(process, ended)
            await asyncio.gather(*readers)
            return await ended
        finally:
            for task in (ready, stopping, *readers):
                task.cancel()
            if process.returncode is None:
                process.kill()

    async def _drain(self, process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
        if ended.done():
            return
        self.state = State.STOPPING
        process.terminate()
        if not await _wait_at_most(asyncio.shield(ended), self._drain_seconds):
            self._watch.on_remark(f"{self.name} did not stop within {self._drain_seconds:g} s; killing it")
            process.kill()

    async def _await_ready(self) -> None:
        while not await self._watch.is_ready():  # noqa: ASYNC110 - the child is another process: no event to await
            await asyncio.sleep(READY_POLL_SECONDS)
        if self.state is State.STARTING:
            self.state = State.READY
        self._ready.set()

    async def _read_stdout(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for above
        async for line in _lines(process.stdout):
            self._watch.on_line(self.name, line)

    async def _read_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - asked for above
        async for line in _lines(process.stderr):
            text = line.decode(errors="replace").rstrip()
            self._last_stderr.append(text)
            self._watch.on_remark(f"{self.name}: {text}")


def _build_environment(additions: Mapping[str, str]) -> dict[str, str]:
    # What the shell sets for another service must not change what runs here.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
    return {**inherited, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **additions}


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the limit: asyncio dropped what it had of it
            continue
        if not line:
            return
        yield line


async def _wait_at_most(awaitable: Awaitable[object], seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(awaitable, seconds)
        return True
    return False


def _describe_exit(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
