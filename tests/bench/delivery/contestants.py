"""Who is measured, each as the process that a user would run: Tocsin's consumer and the two loops in Go.

Tocsin runs as in a pod: `tocsin consume` with a config.yaml, its defaults (64 deliveries in flight, a log line for each
delivery), dedupe on in a real Valkey. The loops log nothing and deduplicate nothing. Standard output goes to a file,
as a container runtime keeps it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.delivery.stage import Stage
from bench.errors import BenchError
from tocsin_core.settings import ENV_PREFIX

TOCSIN = "tocsin"
POLL_LOOP = "poll-loop"
KAFKA_GO = "kafka-go"
CONTESTANTS = (TOCSIN, POLL_LOOP, KAFKA_GO)

START_SECONDS = 60.0
WAIT_SECONDS = 0.02
LOG_TAIL_BYTES = 2_000


@dataclass(frozen=True)
class Job:
    """What one process is to do. Channels are (name, address); none at all is the no-op sink."""

    name: str
    topic: str
    channels: Sequence[tuple[str, str]]


class Runner:
    """A contestant that runs."""

    def __init__(self, job: Job, process: subprocess.Popen[bytes], log: Path) -> None:
        self.job = job
        self._process = process
        self._log = log

    @property
    def process_id(self) -> int:
        """Return whose CPU is measured."""
        return self._process.pid

    def wait_for(self, is_so: Callable[[], bool], *, seconds: float, every_seconds: float = WAIT_SECONDS) -> bool:
        """Return whether `is_so` within so many seconds. Raise BenchError if the process ends meanwhile."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if self._process.poll() is not None:
                raise BenchError(f"{self.job.name} ended with {self._process.returncode}:\n{self._read_tail()}")
            if time.monotonic() > deadline:
                return False
            time.sleep(every_seconds)
        return True

    def wait_or_fail(self, is_so: Callable[[], bool], *, what: str, seconds: float = START_SECONDS) -> None:
        """Return when `is_so`. Raise BenchError, with the end of its log, if that takes too long."""
        if not self.wait_for(is_so, seconds=seconds):
            raise BenchError(f"{self.job.name}: {what} not within {seconds:g} s:\n{self._read_tail()}")

    def count_own(self) -> int:
        """Return how many records it says it has delivered, for where no sink can count."""
        raise NotImplementedError

    def _read_tail(self) -> str:
        with self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")


class LoopRunner(Runner):
    """A loop in Go: it writes its count, a line each time."""

    def count_own(self) -> int:
        """Return the last number it wrote."""
        lines = self._read_tail().rpartition("\n")[0].split()
        return int(lines[-1]) if lines else 0


class TocsinRunner(Runner):
    """A consumer of Tocsin: its metrics tell."""

    _metrics_url = ""

    def count_own(self) -> int:
        """Return `tocsin_consumer_processed_total`."""
        if not self._metrics_url:
            self._metrics_url = self._find_metrics()
            if not self._metrics_url:
                return 0
        with urllib.request.urlopen(self._metrics_url, timeout=5) as response:
            lines = response.read().decode().splitlines()
        [number] = [line.split()[1] for line in lines if line.startswith("tocsin_consumer_processed_total ")]
        return int(float(number))

    def _find_metrics(self) -> str:
        with self._log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if '"consumer started"' in line:
                    return f"http://127.0.0.1:{json.loads(line)['health_port']}/metrics"
        return ""


@contextlib.contextmanager
def running(stage: Stage, contestant: str, job: Job) -> Iterator[Runner]:
    """Run a contestant; leaving kills it, as nothing that it would still do is measured."""
    log = stage.folder / f"{job.name}.log"
    words = _tocsin_words(stage, job) if contestant == TOCSIN else _loop_words(stage, contestant, job)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        yield (TocsinRunner if contestant == TOCSIN else LoopRunner)(job, process, log)
    finally:
        process.kill()
        process.wait()
        log.unlink()


def _loop_words(stage: Stage, program: str, job: Job) -> list[str]:
    words = ["-brokers", stage.kafka.bootstrap_servers, "-topic", job.topic, "-group", job.name]
    addresses = [word for _, address in job.channels for word in ("-url", address)]
    return [str(stage.binaries / program), *words, *addresses]


def _tocsin_words(stage: Stage, job: Job) -> list[str]:
    path = stage.folder / f"{job.name}.yaml"
    path.write_text(json.dumps(build_config(stage, job)), encoding="utf-8")
    return [sys.executable, "-m", "tocsin_cli", "consume", "--config", str(path)]


def build_config(stage: Stage, job: Job) -> dict[str, Any]:
    """Return Tocsin's config.yaml for a job: what must be said, and every default left as it is."""
    channels: list[dict[str, Any]] = [
        {"name": name, "type": "Webhook", "webhook": {"url": address}} for name, address in job.channels
    ]
    return {
        "pipeline": {"namespace": "bench", "name": job.name},
        "kafka": {"brokers": stage.kafka.bootstrap_servers, "topic": job.topic, "consumer_group": job.name},
        "users": {"file": str(stage.users_file)},
        "redis": {"url": stage.valkey.url},
        "consumer": {"channels": channels or [{"name": "log", "type": "Log"}]},
        "health": {"host": "127.0.0.1", "port": 0},
    }
