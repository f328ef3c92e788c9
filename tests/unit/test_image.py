"""What a pod can run: commands of `tocsin` with no package but those the image installs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tocsin_cli.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
# Packages of this environment that requirements/image.txt does not pin are as good as not installed.
CONFINE = """\
import importlib.metadata, re, sys

def normalise(name):
    return re.sub("[-_.]+", "-", name).lower()

pins = {normalise(found) for found in re.findall("^([A-Za-z0-9._-]+)==", open("requirements/image.txt").read(), re.M)}
OWNERS = {
    package: {normalise(each) for each in distributions}
    for package, distributions in importlib.metadata.packages_distributions().items()
}

class Absent:
    def find_spec(self, name, path=None, target=None):
        owners = OWNERS.get(name.partition(".")[0])
        if owners and owners.isdisjoint(pins | {"tocsin"}):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
RUN = "from tocsin_cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
RESOURCE = """\
apiVersion: tocsin.dev/v1alpha1
kind: NotificationPipeline
metadata: {name: orders, namespace: default, uid: 8f14e45f, resourceVersion: "7"}
spec:
  kafka: {bootstrapServers: ["kafka:9092"], topic: {name: orders}}
  users: {configMapRef: {name: users}}
  consumer: {channels: [{name: log, type: Log}]}
"""


def run_confined(script: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CONFINE + script, *words]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def test_what_only_a_developer_needs_is_not_there() -> None:
    done = run_confined(RUN, "dev", "--help")
    assert done.returncode == 1
    assert done.stderr.endswith("is not installed; install the role: pip install 'tocsin[dev]'\n")


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"dev"}))
def test_every_other_command_runs_in_a_pod(name: str) -> None:
    done = run_confined(RUN, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_dead_letters_are_found_in_a_pod_by_the_resource_on_standard_input() -> None:
    find = (
        "import argparse; from tocsin_cli.dlq import command; from tocsin_cli.dlq.place import find_place\n"
        "parser = argparse.ArgumentParser(); command.add_arguments(parser)\n"
        "place = find_place(parser.parse_args(sys.argv[1:])); print(*place.kafka.brokers, place.dead_letter_topic)"
    )
    done = run_confined(find, "list", "-f", "-", stdin=RESOURCE)
    assert (done.stdout, done.stderr) == ("kafka:9092 orders.dlq\n", "")
