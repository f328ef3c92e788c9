"""The commands of docs/dead-letters.md, run in the order of the page against dead letters of a real consumer."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from documentation import read_blocks
from receiver import Answer, Receiver
from world import World, notifications, webhook

pytestmark = pytest.mark.kafka

LETTERS, JUNK = 28, 2
# As an API server returns it: with fields that no author writes.
RESOURCE = """\
apiVersion: tocsin.dev/v1alpha1
kind: NotificationPipeline
metadata: {{name: orders, namespace: default, uid: 8f14e45f, resourceVersion: "7", generation: 1}}
spec:
  kafka:
    bootstrapServers: ["{brokers}"]
    topic: {{name: {topic}}}
  users: {{configMapRef: {{name: users}}}}
  consumer:
    channels: [{{name: push, type: Webhook, webhook: {{url: "https://example.org"}}}}]
status: {{observedGeneration: 1}}
"""
KUBECTL = """\
#!/bin/sh
case "$*" in
  "get npl orders -o yaml") exec cat {resource} ;;
  "exec -i deploy/orders-consumer -- "*) shift 4; exec "$@" ;;
esac
exit 1
"""


async def run(world: World, command: str) -> str:
    """Run one command of the page where orders.yaml lies, and return what it prints."""
    script = command.replace("localhost:9092", world.bootstrap).replace("--topic orders", f"--topic {world.topic}")
    path = f"{world.directory}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=world.directory,
        env={**os.environ, "PATH": path},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def write_surroundings(world: World) -> None:
    """Write the page's orders.yaml, and a kubectl that prints it and runs a command where a pod would."""
    resource = world.directory / "orders.yaml"
    resource.write_text(RESOURCE.format(brokers=world.bootstrap, topic=world.topic))
    kubectl = world.directory / "kubectl"
    kubectl.write_text(KUBECTL.format(resource=resource))
    kubectl.chmod(0o755)


async def test_the_commands_of_the_page_do_what_it_says(world: World) -> None:
    write_surroundings(world)
    with Receiver(Answer(410)) as receiver:
        async with world.consuming([webhook(receiver.url, "push")]):
            for number in range(JUNK):
                world.produce_raw(b"junk", b"%d" % number)
            await world.read_dead_letters(JUNK)  # these come first, so that 0:17 and 0:23 are notifications
            world.produce(notifications(LETTERS))
            await world.read_dead_letters(JUNK + LETTERS)
    commands = [each for block in read_blocks("docs/dead-letters.md") for each in block.commands]
    printed = [await run(world, each) for each in commands]
    everything, chosen, as_json, shown, from_cluster, by_flags, in_a_pod, dry, replayed, again, discarded = printed
    assert all(f"{JUNK + LETTERS} dead letters\n" in each for each in (everything, from_cluster, by_flags, in_a_pod))
    assert f"{LETTERS} dead letters\n" in chosen
    assert as_json == ""
    assert shown.startswith("position  0:17\n")
    assert dry.endswith(f"would replay {LETTERS}\n")
    assert replayed == f"replayed {LETTERS}\n"
    assert again == "replayed 0, passed over 2 settled before\n"
    assert discarded == f"discarded {JUNK}\n"
    left = await run(world, commands[0])
    assert left == f"0 dead letters ({JUNK} discarded, {LETTERS} replayed before)\n"
