"""What CI runs, rehearsed in a folder of its own with stand-ins for the cluster and for make.

A stand-in, because the real thing deletes a whole cluster when it stops: which one it may stop is what is tested.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "run"
MANY_LINES = "\n".join(f"echo 'part{number:<16} pid {number}' || exit 1" for number in range(2_000))


class Rehearsal:
    """A copy of the script beside a cluster that writes down what it is told."""

    def __init__(self, folder: Path, *, status: str) -> None:
        self.script = folder / "checkout" / ".ci" / "run"
        self.script.parent.mkdir(parents=True)
        shutil.copy(SCRIPT, self.script)
        found = re.search(r"^CLUSTER=(\S+)$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
        assert found
        self.log = folder / "log"
        self.log.touch()
        self._write(
            folder / "checkout" / found[1], f'echo "cluster $1" >>{self.log}\ncase $1 in status) {status};; esac'
        )
        self.make = folder / "bin" / "make"
        self._write(self.make, f'echo "make $1 $TOCSIN_TEST_CLUSTER" >>{self.log}')

    def _write(self, path: Path, script: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def run(self) -> tuple[int, list[str]]:
        environment = {"PATH": f"{self.make.parent}:{os.environ['PATH']}"}
        done = subprocess.run([self.script], env=environment, capture_output=True, check=False)
        return done.returncode, self.log.read_text(encoding="utf-8").splitlines()


def test_a_cluster_it_started_is_stopped(tmp_path: Path) -> None:
    code, said = Rehearsal(tmp_path, status="echo 'apiserver            not running'").run()
    assert code == 0
    assert said[-1] == "cluster down"
    assert {"make check 1", "make test 1"} <= set(said)


@pytest.mark.parametrize(
    "status",
    [
        "echo 'apiserver            pid 29029'",
        f"echo 'apiserver            pid 29029'\n{MANY_LINES}",
        "exit 1",
        "echo 'a new format'",
    ],
    ids=["running", "running, and more output than a pipe holds", "status fails", "status says something else"],
)
def test_a_cluster_it_did_not_see_stopped_is_never_stopped(tmp_path: Path, status: str) -> None:
    _, said = Rehearsal(tmp_path, status=status).run()
    assert "cluster down" not in said
    assert any(line.startswith("make test") for line in said)


def test_a_failed_check_fails_the_run_and_still_stops_its_cluster(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, status="echo 'apiserver            not running'")
    rehearsal.make.write_text("#!/bin/bash\n[ $1 != check ]\n", encoding="utf-8")
    code, said = rehearsal.run()
    assert code == 1
    assert said[-1] == "cluster down"
