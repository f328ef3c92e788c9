"""The peers of the benchmarks: Go programs in two modules, built with the machine's own Go into `.bench/bin`.

Versions are pinned in go.mod and go.sum. The module path carries no host, so nothing but its dependencies is fetched.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError

SOURCES = Path(__file__).parent
ROOT = Path(__file__).resolve().parents[2]
BINARIES = ROOT / ".bench" / "bin"
DELIVERY = ("sink", "poll-loop", "kafka-go")
INGESTION = ("gin-sarama", "gin-confluent", "load")


def build_peers(module: str = "peers", programs: Sequence[str] = DELIVERY) -> Path:
    """Build a module's programs (minutes the first time, then nothing) and return their folder.

    Raise BenchError where Go, or a C compiler for librdkafka, is missing.
    """
    go = shutil.which("go")
    if go is None:
        raise BenchError("`go` is not on PATH: the peers are Go programs. Install Go 1.25 or newer, and gcc")
    BINARIES.mkdir(parents=True, exist_ok=True)
    built = subprocess.run(
        [go, "build", "-o", str(BINARIES), *(f"./{program}" for program in programs)],
        cwd=SOURCES / module,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise BenchError(f"the peers in {SOURCES / module} do not build:\n{built.stderr}")
    return BINARIES


def read_go_version() -> str:
    """Return what Go says of itself, for the report."""
    return subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
