"""The peers of the benchmarks: Go programs in `peers/`, built with the machine's own Go into `.bench/bin`.

Versions are pinned in go.mod and go.sum. The module path carries no host, so nothing but its dependencies is fetched.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.errors import BenchError

SOURCE = Path(__file__).with_name("peers")
ROOT = Path(__file__).resolve().parents[2]
BINARIES = ROOT / ".bench" / "bin"
PROGRAMS = ("sink", "poll-loop", "kafka-go")


def build_peers() -> Path:
    """Build all programs (a minute the first time, then nothing) and return their folder.

    Raise BenchError where Go, or a C compiler for librdkafka, is missing.
    """
    go = shutil.which("go")
    if go is None:
        raise BenchError("`go` is not on PATH: the peers are Go programs. Install Go 1.25 or newer, and gcc")
    BINARIES.mkdir(parents=True, exist_ok=True)
    built = subprocess.run(
        [go, "build", "-o", str(BINARIES), *(f"./{program}" for program in PROGRAMS)],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise BenchError(f"the peers in {SOURCE} do not build:\n{built.stderr}")
    return BINARIES


def read_go_version() -> str:
    """Return what Go says of itself, for the report."""
    return subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
