"""Who runs: Tocsin and its peers, each one process on the same broker and topic, told the same users."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.errors import BenchError

USERS = 1_000
START_SECONDS = 30.0
ONE, BATCH = "/v1/notifications", "/v1/notifications:batch"
TOCSIN, GIN_SARAMA = "tocsin", "gin + sarama"
GIN_CONFLUENT, FASTAPI = "gin + confluent-kafka-go", "fastapi + AIOProducer"

Command = Callable[[Path, Path, str, str, int], list[str]]


@dataclass(frozen=True)
class Contestant:
    """One server. `command` takes the folder of the binaries, a folder of its own, brokers, topic and port."""

    name: str
    command: Command


def _tocsin(binaries: Path, folder: Path, brokers: str, topic: str, port: int) -> list[str]:
    del binaries
    users = "".join(f'"{number}": {{name: User {number}}}\n' for number in range(1, USERS + 1))
    (folder / "users.yaml").write_text(users, encoding="utf-8")
    config = {
        "kafka": {"brokers": brokers, "topic": topic},
        "users": {"file": str(folder / "users.yaml")},
        "ingestion": {"host": "127.0.0.1", "port": port, "drain_seconds": 1},
        "health": {"host": "127.0.0.1", "port": 0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return [sys.executable, "-m", "tocsin_cli", "ingest", "--config", str(folder / "config.yaml")]


def _peer(*program: str) -> Command:
    def command(binaries: Path, folder: Path, brokers: str, topic: str, port: int) -> list[str]:
        del folder
        first = [sys.executable, *program[1:]] if program[0] == "python" else [str(binaries / program[0])]
        return [
            *first, "-listen", f"127.0.0.1:{port}", "-brokers", brokers, "-topic", topic, "-users", str(USERS),
        ]  # fmt: skip

    return command


CONTESTANTS = (
    Contestant(TOCSIN, _tocsin),
    Contestant(GIN_SARAMA, _peer("gin-sarama")),
    Contestant(GIN_CONFLUENT, _peer("gin-confluent")),
    Contestant(FASTAPI, _peer("python", str(Path(__file__).with_name("fastapi_aio.py")))),
)


@dataclass(frozen=True)
class Server:
    """A running contestant."""

    process_id: int
    url: str


@contextmanager
def run(contestant: Contestant, *, binaries: Path, folder: Path, brokers: str, topic: str) -> Iterator[Server]:
    """Start a contestant and yield it once it answers. Raise BenchError with its log if it does not."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            contestant.command(binaries, folder, brokers, topic, port), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_it_stores(url, process, log)
        yield Server(process.pid, url)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_stores(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    body = b'{"fromID": 1, "toID": 2, "message": "ready?"}'
    headers = {"Content-Type": "application/json"}
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url + ONE, body, headers), timeout=15) as response:
                if response.status == 202:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    raise BenchError(f"it never stored anything:\n{log.read_text(encoding='utf-8', errors='replace')[-2_000:]}")
