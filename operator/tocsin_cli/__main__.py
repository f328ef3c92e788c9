"""The `tocsin` command and the kubectl plugin `kubectl tocsin`: one word per role or question.

argparse rather than a framework, because the same entry point starts in every image and must import in milliseconds:
a subcommand's module is loaded only when it is asked for, and a role whose extra is not installed says which to add.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from tocsin_core.errors import TocsinError


class Command(NamedTuple):
    """A subcommand: its module has `add_arguments(parser)` and `run(arguments) -> exit code`."""

    module: str
    extra: str
    summary: str


COMMANDS = {
    "dev": Command("tocsin_cli.dev.command", "dev", "run a whole pipeline on this machine, on a real Kafka"),
    "send": Command("tocsin_cli.send", "dev", "send one notification, or a file of them"),
    "listen": Command("tocsin_cli.listen", "dev", "show the notifications that arrive on a person's WebSocket"),
    "dlq": Command("tocsin_cli.dlq.command", "", "list, show, replay or discard dead letters"),
    "operator": Command("tocsin_cli.roles.operator", "operator", "run the operator (in a pod, or against $KUBECONFIG)"),
    "ingest": Command("tocsin_cli.roles.ingest", "ingestion", "run the ingestion service"),
    "consume": Command("tocsin_cli.roles.consume", "consumer", "run the consumer service"),
    "keys": Command("tocsin_cli.keys", "", "make an API key for ingestion, or hash one"),
    "explain": Command("tocsin_cli.explain", "", "say why a pipeline has as many consumers as it has"),
    "simulate": Command("tocsin_cli.simulate.command", "", "try scaling policies on a load, without a cluster"),
    "version": Command("tocsin_cli.version", "", "print the version"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand in `argv` (default: the process's arguments) and return its exit code; 2 is a usage error."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if word in COMMANDS), None)
    parser = argparse.ArgumentParser(prog="tocsin", description="Notification pipelines on Kubernetes and Kafka.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for each, command in COMMANDS.items():
        sub = subparsers.add_parser(each, help=command.summary, description=command.summary)
        if each == name and words[0] == each:
            module = _load(each, command)
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    arguments = parser.parse_args(words)
    try:
        return int(arguments.run(arguments))
    except TocsinError as error:
        print(f"tocsin {words[0]}: {error}", file=sys.stderr)
        return 2


def _load(name: str, command: Command) -> Any:
    try:
        return importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tocsin"):
            raise
        sys.exit(
            f"tocsin {name}: {error.name} is not installed; install the role: pip install 'tocsin[{command.extra}]'"
        )


if __name__ == "__main__":
    sys.exit(main())
