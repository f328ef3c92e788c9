"""`tocsin version`: what is installed here."""

from __future__ import annotations

import argparse
from importlib.metadata import version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin version`: none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Print the version; return 0."""
    del arguments
    print(version("tocsin"))
    return 0
