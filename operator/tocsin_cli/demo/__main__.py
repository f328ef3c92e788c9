"""`python -m tocsin_cli.demo [--seconds S] [--rate R] [--json FILE]`: what `make demo` runs.

Exit 0 only if nothing was lost and nothing was received twice, counted at the receiver against the ids that the API
answered 202. Whether the consumers went out and came in again is said, and is in the JSON.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
from pyreqwest.client import ClientBuilder

from tocsin_cli.demo.receiver import HOOK_PATH, RECEIPTS_PATH, Receipts
from tocsin_cli.demo.resource import CHANNEL, DELAY_SECONDS, build_demo_file, make_webhook_secret
from tocsin_cli.demo.verdict import decide_demo_exit_code, explain_demo
from tocsin_cli.dev.command import add_output_arguments, check_outputs, positive, run_plan
from tocsin_cli.dev.plan import Plan, Receiver
from tocsin_cli.dev.ports import HOST
from tocsin_cli.dev.profile import build_demo_profile
from tocsin_cli.resource.manifest import parse_manifest
from tocsin_core.errors import TocsinError

COME_IN_SECONDS = 60.0
BACKLOG = 1_024
USAGE = 2


def main(words: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description="A whole pipeline under load, on this machine.")
    parser.add_argument("--seconds", type=positive, default=60.0, help="how long the load lasts (default: 60)")
    parser.add_argument(
        "--rate", type=positive, default=300.0, help="notifications a second at the peak (default: 300)"
    )
    add_output_arguments(parser)
    arguments = parser.parse_args(words)
    try:
        check_outputs(arguments)
        return _run(arguments)
    except TocsinError as error:
        print(f"make demo: {error}", file=sys.stderr)
        return USAGE


def _run(arguments: argparse.Namespace) -> int:
    secret = make_webhook_secret()
    with socket.create_server((HOST, 0), backlog=BACKLOG) as listener, running_receiver(listener, secret):
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        tally, _ = run_plan(_build_plan(arguments, url, secret), output=arguments.json)
    print(explain_demo(tally))
    return decide_demo_exit_code(tally)


def _build_plan(arguments: argparse.Namespace, url: str, secret: str) -> Plan:
    rate = arguments.rate
    return Plan(
        title=f"Tocsin demo · up to {rate:g} a second to a webhook that takes {DELAY_SECONDS * 1000:g} ms each",
        manifest=parse_manifest(build_demo_file(url + HOOK_PATH, secret), name="demo"),
        profile=build_demo_profile(arguments.seconds, rate),
        come_in_seconds=COME_IN_SECONDS,
        receiver=Receiver(channel=CHANNEL, count=lambda: count_receipts(url)),
        log=arguments.log,
    )


async def count_receipts(url: str) -> dict[str, int]:
    """Return how often the receiver got each notification. Raise TocsinError if requests came without a signature.

    A webhook-id is the notification's id and the channel's name, joined by an underscore.
    """
    async with ClientBuilder().timeout(timedelta(seconds=60)).no_proxy().build() as client:
        response = await client.get(url + RECEIPTS_PATH).build().send()
        receipts = msgspec.json.decode(bytes(await response.bytes()), type=Receipts)
    if receipts.refused:
        raise TocsinError(f"{receipts.refused} requests reached the receiver without a valid signature")
    return {webhook_id.removesuffix(f"_{CHANNEL}"): count for webhook_id, count in receipts.by_id.items()}


@contextmanager
def running_receiver(listener: socket.socket, secret: str) -> Iterator[None]:
    """Run the receiver on this socket, in a process of its own, which ends with this one whatever happens."""
    with tempfile.TemporaryDirectory(prefix="tocsin-demo-") as folder:
        secret_file = Path(folder) / "secret"
        secret_file.touch(mode=0o600)
        secret_file.write_text(secret)
        number = listener.fileno()
        words = ("--socket", str(number), "--secret-file", str(secret_file), "--delay-seconds", str(DELAY_SECONDS))
        module = (str(os.getpid()), "tocsin_cli.demo.receiver", *words)
        command = [sys.executable, "-m", "tocsin_cli.processes.bound", *module]
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[number], start_new_session=True) as process:  # noqa: S603 - own words
            try:
                yield
            finally:
                process.terminate()


if __name__ == "__main__":
    sys.exit(main())
