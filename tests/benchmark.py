"""Runs a benchmark as a user does: by its word of the Makefile."""

from __future__ import annotations

import os
import subprocess

from documentation import ROOT

# A make within a make would have the last word, and say which folder it leaves.
OUTSIDE_MAKE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def run_benchmark(word: str, flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return how `make WORD BENCH=FLAGS` ended and what it said."""
    return subprocess.run(
        ["make", word, f"BENCH={flags}"],
        cwd=ROOT,
        env={**OUTSIDE_MAKE, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
