"""Children start, drain, come back and never outlive their parent: with real processes."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tocsin_cli.processes.child import Child, Command, State, Watch, backoff_seconds

MODULE = """
import signal, sys, time
from pathlib import Path

def main(words):
    kind, folder = words[0], Path(words[1])
    print("hello from", kind, flush=True)
    if kind == "crash":
        count = len(list(folder.iterdir()))
        (folder / str(count)).touch()
        if count < 2:
            print("boom", file=sys.stderr)
            return 7
    def drain(*_):
        if kind == "deaf":
            return
        (folder / "drained").touch()
        sys.exit(0)
    signal.signal(signal.SIGTERM, drain)
    (folder / "up").touch()
    while True:
        time.sleep(0.05)
"""

ELSEWHERE = """
import sys, sysconfig
sysconfig.get_config_vars()  # read while the platform still has its own name: the file they are in is named after it
sys.platform = "elsewhere"
"""


class Stage:
    """A child under test, and what was heard of it."""

    def __init__(self, folder: Path, kind: str, *, drain_seconds: float = 10.0) -> None:
        self.folder = folder / "marks"
        self.folder.mkdir()
        (folder / "played.py").write_text(MODULE)
        self.lines: list[bytes] = []
        self.remarks: list[str] = []
        self.remarked = asyncio.Event()
        command = Command("played", [kind, str(self.folder)], {"PYTHONPATH": str(folder)})
        watch = Watch(lambda _name, line: self.lines.append(line), self._on_remark, self._is_ready)
        self.child = Child("played", lambda: command, watch, drain_seconds=drain_seconds)

    def _on_remark(self, text: str) -> None:
        self.remarks.append(text)
        self.remarked.set()

    async def _is_ready(self) -> bool:
        return (self.folder / "up").exists()


async def test_a_child_is_ready_when_it_says_so_and_drains_when_asked(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "good")
    await asyncio.wait_for(stage.child.wait_ready(), 30)
    before = stage.child.state
    await stage.child.stop()
    assert (stage.folder / "drained").exists()
    assert stage.lines == [b"hello from good\n"]
    assert (before, stage.child.state) == (State.READY, State.STOPPED)


async def test_a_child_that_crashes_is_started_again_and_says_so(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "crash")
    await asyncio.wait_for(stage.child.wait_ready(), 30)
    assert stage.child.crashes == 2
    assert "played ended with exit code 7; starting it again in 0.5 s" in stage.remarks
    assert "played: boom" in stage.remarks
    assert stage.child.last_words == "boom\nboom"
    await stage.child.stop()


async def test_a_child_killed_from_outside_is_started_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "good")
    await asyncio.wait_for(stage.child.wait_ready(), 30)
    assert stage.child.process_id is not None
    os.kill(stage.child.process_id, signal.SIGKILL)
    await asyncio.wait_for(stage.remarked.wait(), 10)
    assert "was killed by signal 9" in stage.remarks[0]
    await stage.child.stop()


async def test_a_child_that_will_not_drain_is_killed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "deaf", drain_seconds=0.2)
    await asyncio.wait_for(stage.child.wait_ready(), 30)
    await asyncio.wait_for(stage.child.stop(), 10)
    assert "did not stop within 0.2 s" in stage.remarks[-1]


async def test_a_stop_while_a_crashed_child_waits_returns_at_once(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "crash")
    await asyncio.wait_for(stage.remarked.wait(), 30)
    await asyncio.wait_for(stage.child.stop(), 5)


@pytest.mark.parametrize("is_linux_call_off", [False, True])
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path, is_linux_call_off: bool) -> None:
    (tmp_path / "played.py").write_text(MODULE)
    parent = f"""
import asyncio, sys
from pathlib import Path
from tocsin_cli.processes.child import Child, Command, Watch

async def main():
    async def is_ready():
        return Path({str(tmp_path)!r}, "up").exists()
    words = ["deaf", {str(tmp_path)!r}]
    child = Child("c", lambda: Command("played", words, {{"PYTHONPATH": {str(tmp_path)!r}}}),
                  Watch(lambda *_: None, print, is_ready), drain_seconds=5)
    await child.wait_ready()
    print(child.process_id, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    if is_linux_call_off:  # as on macOS: only the pipe tells the child
        (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)} if is_linux_call_off else None
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        child_id = int(process.stdout.readline())
        process.kill()
        process.wait()
    assert _is_gone_within(child_id, seconds=5)


def test_backoff_doubles_up_to_a_bound() -> None:
    assert [backoff_seconds(crashes) for crashes in (1, 2, 3, 10)] == [0.5, 1.0, 2.0, 15.0]


def _is_gone_within(process_id: int, *, seconds: float) -> bool:
    watch = os.pidfd_open(process_id) if Path(f"/proc/{process_id}").exists() else None
    if watch is None:
        return True
    try:
        return bool(select.select([watch], [], [], seconds)[0])
    finally:
        os.close(watch)
