"""The README's commands for one machine, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from documentation import ROOT, find_block

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def run_script(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(
        words, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=240
    )


@contextmanager
def started(script: str) -> Iterator[subprocess.Popen[str]]:
    words = ["bash", "-euo", "pipefail", "-c", script]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_tocsin_dev_runs_the_quickstart_and_takes_the_notification_of_the_readme() -> None:
    with started(find_block("README.md", "make setup")) as process:
        assert process.stdout is not None
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://[\w.]+:\d+", line)))
        post = find_block("README.md", "Grüße aus der Küche").replace("http://localhost:8080", address)
        answer = run_script(post)
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["id"]
    assert process.returncode == 0, rest
    assert "delivered" in rest


def test_a_file_is_delivered_and_its_refused_lines_are_named(tmp_path: Path) -> None:
    lines = tmp_path / "my.ndjson"
    lines.write_text('{"fromID": 1, "toID": 2, "message": "hi"}\n{"fromID": 1, "toID": 999, "message": "who?"}\n')
    script = find_block("README.md", "--input my.ndjson").replace("my.ndjson", str(lines))
    done = run_script(script)
    assert done.returncode == 3, done.stderr
    assert re.search(r"^line 2: .*999", done.stderr, re.MULTILINE)


def test_what_is_sent_appears_on_the_screen_of_whoever_listens() -> None:
    dev, listen, send = find_block("docs/websocket.md", "tocsin listen").splitlines()
    with started(dev) as process:
        assert process.stdout is not None
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://[\w.]+:\d+", line)))
        with started(f"{listen} --url {address} --count 1") as listening:
            assert listening.stdout is not None
            assert listening.stdout.readline() == "connected\n"
            sent = run_script(f"{send} --url {address}").stdout.strip()
            frame = json.loads(listening.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
    assert (frame["id"], frame["message"], frame["channel"]) == (sent, "Grüße aus der Küche", "screen")
    assert process.returncode == 0


def test_make_demo_ends_well(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    done = run_script(f"{find_block('README.md', 'make demo').strip()} SECONDS=10 RATE=50 JSON={report}")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert (told["lost"], told["duplicates"]) == (0, 0)
    assert told["accepted"] == told["delivered"] > 0
