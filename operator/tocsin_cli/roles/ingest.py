"""`tocsin ingest`: the ingestion service, configured by one file and the environment."""

from __future__ import annotations

import argparse
from pathlib import Path

from tocsin_core.settings import load_settings
from tocsin_ingestion.server import run as run_service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `tocsin ingest`."""
    parser.add_argument("--config", type=Path, help="config.yaml (default: $TOCSIN_CONFIG, else /etc/tocsin/config)")


def run(arguments: argparse.Namespace) -> int:
    """Run the service until it is told to stop; return its exit code."""
    return run_service(load_settings(arguments.config))
