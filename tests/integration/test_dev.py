"""`tocsin dev` as a process: lines go in over real HTTP, come out at the channel, and the tally is right."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tocsin_cli.embedded.kafka import EmbeddedKafka

pytestmark = pytest.mark.kafka

QUICKSTART = Path(__file__).parents[2] / "manifests" / "samples" / "quickstart.yaml"
TOCSIN = (sys.executable, "-m", "tocsin_cli.__main__")
GOOD: list[dict[str, Any]] = [
    *({"fromID": 1, "toID": 2, "message": f"to two, number {number}"} for number in range(40)),
    {"fromID": "1", "toID": "3", "message": "Größe, 你好, مرحبا, 🎉", "title": "naïve"},
    {"fromID": 1, "toID": 3, "message": "long " + "ä" * 32_000},
    {"fromID": 1, "toID": 3, "message": "and after the long one"},
    {"fromID": 4, "toID": 5, "message": "two\nlines and a \u0000 zero", "channels": ["log"]},
]
BAD = {
    "{'fromID': 1}": "not JSON",
    '{"fromID": 1, "toID": 2, "message": "cut': "not JSON",
    '{"fromID": 1, "toID": "nobody", "message": "x"}': "no user has the id 'nobody'",
    json.dumps({"fromID": 1, "toID": 2, "message": "x" * 40_000}): "message",
    json.dumps({"fromID": 1, "toID": 2, "message": "x" * 300_000}): "longer than 262144 bytes",
    '{"fromID": 1, "toID": 2, "message": "x", "colour": "red"}': "colour",
}


def resource(folder: Path, *, spec: str = "", name: str = "") -> Path:
    """Write the quickstart under a name, topic and group of its own, with more lines of spec."""
    name = name or f"dev-{secrets.token_hex(4)}"
    text = QUICKSTART.read_text().replace("{name: quickstart}", f"{{name: {name}}}")
    text = text.replace("  users: {configMapRef", f"{spec}  users: {{configMapRef")
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def run(*words: str | Path, standard_input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*TOCSIN, *map(str, words)], input=standard_input, capture_output=True, timeout=150, check=False
    )


def receipts(output: bytes) -> list[dict[str, Any]]:
    """Return what the Log channel wrote, in order."""
    entries = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    return [entry for entry in entries if entry["event"] == "notification"]


class Dev:
    """A `tocsin dev` that runs, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed: list[str] = []

    def read_until(self, text: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was never printed:\n{''.join(self.printed)}")

    def send(self, *messages: str) -> None:
        url = self.url
        for message in messages:
            assert run("send", "--url", url, "--from", "1", "--to", "2", message).returncode == 0

    def await_ready(self) -> None:
        self.url = self.read_until("the pipeline is ready on").split(" ready on ")[1].split(",")[0]

    def children(self) -> dict[int, str]:
        """Return the process ids of all descendants, with their command lines."""
        parents, commands = {}, {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    stat = (folder / "stat").read_text().rpartition(")")[2].split()
                    commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                parents[int(folder.name)] = int(stat[1])
        return {child: commands[child] for child, parent in parents.items() if parent == self.process.pid}


@contextmanager
def usual_ports_taken() -> Iterator[None]:
    """Hold ingestion's and health's usual ports, as far as nobody else does already."""
    with ExitStack() as stack:
        for port in (8080, 9090):
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


@contextmanager
def running(*words: str | Path) -> Iterator[Dev]:
    command = [*TOCSIN, "dev", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield Dev(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_good_lines_arrive_in_order_and_bad_ones_are_refused_by_number(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    lines = [json.dumps(each, ensure_ascii=False) for each in GOOD]
    for position, bad in enumerate(BAD):
        lines.insert(position * 5 + 3, bad)
    lines.insert(7, "")
    (tmp_path / "my.ndjson").write_text("\n".join(lines), encoding="utf-8")
    output = tmp_path / "out.json"

    done = run(
        "dev", "-f", resource(tmp_path), "--brokers", kafka.bootstrap_servers,
        "--input", tmp_path / "my.ndjson", "--json", output,
    )  # fmt: skip

    assert done.returncode == 3, done.stderr.decode()
    refused = dict(line.split(": ", 1) for line in done.stderr.decode().splitlines())
    assert refused.keys() == {f"line {lines.index(bad) + 1}" for bad in BAD}
    for bad, reason in BAD.items():
        assert reason in refused[f"line {lines.index(bad) + 1}"]
    arrived = defaultdict(list)
    for entry in receipts(done.stdout):
        arrived[entry["to_id"]].append(entry["message"])
    wanted = defaultdict(list)
    for each in GOOD:
        wanted[str(each["toID"])].append(each["message"])
    assert arrived == wanted
    tally = json.loads(output.read_text())
    numbers = {key: tally[key] for key in ("accepted", "delivered", "dead_lettered", "refused", "lost", "duplicates")}
    assert numbers == {
        "accepted": len(GOOD),
        "delivered": len(GOOD),
        "dead_lettered": 0,
        "refused": len(BAD),
        "lost": 0,
        "duplicates": 0,
    }
    assert tally["kafka"] == {"brokers": kafka.bootstrap_servers, "embedded": False, "version": ""}


def test_good_lines_alone_from_standard_input_end_with_0(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    lines = b"\n".join(json.dumps(each).encode() for each in GOOD[:5])
    with usual_ports_taken():
        done = run(
            "dev", "-f", resource(tmp_path), "--brokers", kafka.bootstrap_servers, "--input", "-", standard_input=lines
        )
    assert (done.returncode, done.stderr) == (0, b""), done.stdout.decode()
    assert [entry["message"] for entry in receipts(done.stdout)] == [each["message"] for each in GOOD[:5]]
    assert b"the pipeline is ready on http://127.0.0.1:" in done.stdout
    assert b"http://127.0.0.1:8080" not in done.stdout


def test_others_may_post_and_ctrl_c_drains(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    with running("-f", resource(tmp_path), "--brokers", kafka.bootstrap_servers, "--json", output) as dev:
        dev.await_ready()
        dev.send("one", "two", "three")
        dev.process.send_signal(signal.SIGINT)
        dev.read_until("3 accepted · 3 delivered")
        assert dev.process.wait(60) == 0
    assert json.loads(output.read_text())["lost"] == 0


def test_a_consumer_that_is_killed_comes_back_and_nothing_is_lost(tmp_path: Path) -> None:
    with running("-f", resource(tmp_path)) as dev:  # its own Kafka misses a member sooner than the tests' one
        dev.await_ready()
        dev.send("before")
        (consumer,) = (each for each, command in dev.children().items() if " consume " in command)
        os.kill(consumer, signal.SIGKILL)
        dev.read_until("consumer-0 was killed by signal 9; starting it again")
        dev.send("after")
        dev.read_until('"message":"after"')
        dev.process.terminate()
        dev.read_until("2 accepted · 2 delivered")
        assert dev.process.wait(60) == 0


def test_nothing_outlives_a_killed_session(tmp_path: Path) -> None:
    with running("-f", resource(tmp_path)) as dev:  # with a Kafka of its own, which must go too
        dev.await_ready()
        children = dev.children()
        watches = [os.pidfd_open(child) for child in children]
        dev.process.kill()
        assert any("kafka.Kafka" in command for command in children.values())
        assert sum("tocsin_cli.processes.bound" in command for command in children.values()) == 2
        assert all(_is_gone_within(watch, seconds=15) for watch in watches)


def test_generated_load_is_delivered_once_with_a_store(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    spec = "  redis: {url: 'redis://valkey:6379/0'}\n"
    output = tmp_path / "out.json"
    done = run(
        "dev", "-f", resource(tmp_path, spec=spec), "--brokers", kafka.bootstrap_servers,
        "--rate", "40", "--seconds", "2", "--json", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode()
    assert b"Valkey serves on redis://127.0.0.1:" in done.stdout
    tally = json.loads(output.read_text())
    assert (tally["lost"], tally["duplicates"]) == (0, 0)
    assert 40 <= tally["delivered"] <= 80


def test_a_kafka_nobody_answers_at_is_named(tmp_path: Path) -> None:
    done = run("dev", "-f", resource(tmp_path), "--brokers", "127.0.0.1:1")
    assert done.returncode == 2
    assert b"tocsin dev: " in done.stderr
    assert b"127.0.0.1:1" in done.stderr


def test_a_short_demo_loses_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    words = ("--seconds", "4", "--rate", "60", "--json", str(output))
    done = _run_module("tocsin_cli.demo", words)
    tally = json.loads(output.read_text())
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert (tally["lost"], tally["duplicates"]) == (0, 0)
    assert tally["accepted"] == tally["delivered"] > 0
    assert tally["kafka"]["embedded"] is True
    assert b"Nothing lost, nothing twice" in done.stdout


def _run_module(module: str, words: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", module, *words], capture_output=True, timeout=170, check=False)


def _is_gone_within(watch: int, *, seconds: float) -> bool:
    try:
        return bool(select.select([watch], [], [], seconds)[0])
    finally:
        os.close(watch)
