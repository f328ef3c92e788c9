"""The broker stops for a while under load: what clients see, what is lost, how soon it is over."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench.ingestion.contestants import CONTESTANTS, ONE, TOCSIN, Server
from bench.ingestion.stage import Load, Stage
from bench.proc import read_resident_megabytes

BEFORE_SECONDS, AFTER_SECONDS = 4.0, 8.0
BUCKET_SECONDS = 0.05
RECOVERED_SHARE = 0.9
CONNECTIONS = 2_000
"""So many that the rate goes on while answers are outstanding: an open loop needs them."""


@dataclass(frozen=True)
class Paused:
    """What a pause of so many seconds brought about. `lost`: answered 202, and not in the topic."""

    pause_seconds: float
    statuses: dict[str, int]
    lost: int
    longest_seconds: float
    recovered_after_seconds: float
    resident_megabytes: float
    slowest_health_seconds: float


def run_pause(stage: Stage, folder: Path, *, pause_seconds: float, rate: float) -> Paused:
    """Stop the broker for `pause_seconds` in the middle of an open loop of `rate` requests per second."""
    ids = folder / f"ids-{pause_seconds:g}"
    seconds = BEFORE_SECONDS + pause_seconds + AFTER_SECONDS
    load = Load(ONE, CONNECTIONS, seconds, rate=rate, ids=ids)
    contestant = next(each for each in CONTESTANTS if each.name == TOCSIN)
    with stage.serve(contestant) as (server, topic), stage.start_load(server, load) as process:
        watch = Watch(server)
        watch.start()
        started_at = time.monotonic()
        time.sleep(BEFORE_SECONDS)
        os.kill(stage.kafka.pid, signal.SIGSTOP)
        try:
            time.sleep(pause_seconds)
        finally:
            os.kill(stage.kafka.pid, signal.SIGCONT)
        back_at = time.monotonic() - started_at
        output, _ = process.communicate()
        watch.stop()
        answer = json.loads(output)
        lost = set(ids.read_text(encoding="ascii").split()) - stage.read_ids(topic)
    return Paused(
        pause_seconds,
        answer["statuses"],
        len(lost),
        answer["max_ms"] / 1_000,
        find_recovery(answer["buckets"], back_at, rate) - back_at,
        watch.resident_megabytes,
        watch.slowest_seconds,
    )


def find_recovery(buckets: dict[str, dict[str, int]], back_at: float, rate: float) -> float:
    """Return from when on, in seconds of the load, half a second's answers are 202s again at nearly the rate."""
    width = round(0.5 / BUCKET_SECONDS)
    last = max(int(number) for number in buckets)
    for first in range(math.ceil(back_at / BUCKET_SECONDS), last):
        answers = [buckets.get(str(number), {}) for number in range(first, first + width)]
        stored = sum(each.get("202", 0) for each in answers)
        others = sum(sum(each.values()) for each in answers) - stored
        if not others and stored >= RECOVERED_SHARE * rate * width * BUCKET_SECONDS:
            return first * BUCKET_SECONDS
    return float("inf")


class Watch(threading.Thread):
    """Looks at a server ten times a second: its memory, and how long its event loop takes to say that it is alive."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.resident_megabytes = 0.0
        self.slowest_seconds = 0.0
        self._server = server
        self._is_over = threading.Event()

    def run(self) -> None:
        """Look until stopped."""
        while not self._is_over.wait(0.1):
            begun_at = time.monotonic()
            urllib.request.urlopen(self._server.url + "/healthz", timeout=60).close()
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - begun_at)
            self.resident_megabytes = max(self.resident_megabytes, read_resident_megabytes(self._server.process_id))

    def stop(self) -> None:
        """Look no more."""
        self._is_over.set()
        self.join()
