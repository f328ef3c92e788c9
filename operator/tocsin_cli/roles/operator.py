"""`tocsin operator`: the control plane, configured by the environment alone."""

from __future__ import annotations

import argparse

from tocsin_operator.__main__ import run as run_operator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin operator`: none; the chart sets its environment."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Run the operator until it is told to stop or loses its Lease; return its exit code."""
    del arguments
    return run_operator()
