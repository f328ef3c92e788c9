"""The real runs alone: `PYTHONPATH=tests .venv/bin/python -m bench.cluster --traces step --pictures docs/pictures`.

`make bench-scaling` runs them after its simulations. The last line is what it has under `cluster`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.cluster.report import run_traces
from bench.cluster.traces import TRACES
from bench.errors import BenchError


def main() -> int:
    """Run the traces and print a table each."""
    parser = argparse.ArgumentParser(prog="bench.cluster", description=__doc__)
    parser.add_argument("--traces", default=",".join(TRACES), help="which traces (default: all)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw each trace")
    arguments = parser.parse_args()
    try:
        summary = run_traces(arguments.traces.split(","), pictures=arguments.pictures)
    except BenchError as error:
        print(f"bench.cluster: {error}", file=sys.stderr)
        return 2
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
