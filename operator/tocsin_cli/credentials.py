"""What the command line shows to ingestion: a key or a token, from a file or the environment.

Never from a flag: the machine's other users can list those.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tocsin_core.errors import TocsinError

ENV_TOKEN = "TOCSIN_TOKEN"  # noqa: S105 - the variable's name


class CredentialError(TocsinError):
    """The file with the credential cannot be read; the text says why."""


def add_token_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag."""
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"holds an API key or a token (default: ${ENV_TOKEN}, if set)"
    )


def read_token(path: Path | None) -> str:
    """Return the credential in the file, else in the environment, else "". Raise CredentialError naming the file."""
    if path is None:
        return os.environ.get(ENV_TOKEN, "").strip()
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialError(f"--token-file {path}: {getattr(error, 'strerror', None) or 'not ASCII text'}") from error
    if not token:
        raise CredentialError(f"--token-file {path}: empty; it must hold an API key or a token")
    return token


def build_headers(token: str) -> dict[str, str]:
    """Return the header that shows a credential; none for ""."""
    return {"Authorization": f"Bearer {token}"} if token else {}
