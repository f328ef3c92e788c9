"""The Go programs of this benchmark: two peers and the load, built from `peers_ingestion/` into `.bench/bin`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.errors import BenchError

SOURCE = Path(__file__).resolve().parents[1] / "peers_ingestion"
ROOT = Path(__file__).resolve().parents[3]
BINARIES = ROOT / ".bench" / "bin"
NAMES = ("gin-sarama", "gin-confluent", "load")


def build_programs() -> Path:
    """Build them (minutes the first time, then nothing) and return their folder.

    Raise BenchError where Go, or a C compiler for librdkafka, is missing.
    """
    go = shutil.which("go")
    if go is None:
        raise BenchError("`go` is not on PATH: the peers are Go programs. Install Go 1.25 or newer, and gcc")
    BINARIES.mkdir(parents=True, exist_ok=True)
    command = [go, "build", "-o", str(BINARIES), *(f"./{name}" for name in NAMES)]
    built = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise BenchError(f"the peers in {SOURCE} do not build:\n{built.stderr}")
    return BINARIES
