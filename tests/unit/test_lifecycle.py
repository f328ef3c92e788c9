from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
import uvloop

from tocsin_core.lifecycle import run

SERVICE = """
import asyncio, sys
from tocsin_core.lifecycle import run

async def main(stop):
    print("ready", flush=True)
    await stop.wait()
    print("draining", flush=True)
    await asyncio.sleep(float(sys.argv[1]))
    return 7

sys.exit(run(main))
"""


def start(drain_seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SERVICE, str(drain_seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def read(service: subprocess.Popen[str]) -> str:
    assert service.stdout is not None
    return service.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_for_an_orderly_end_and_the_exit_code_is_mains(number: signal.Signals) -> None:
    with start(0) as service:
        assert read(service) == "ready"
        service.send_signal(number)
        assert read(service) == "draining"
        assert service.wait(10) == 7


def test_more_sigterms_and_one_sigint_do_not_cut_the_drain_short() -> None:
    with start(0.5) as service:
        assert read(service) == "ready"
        service.send_signal(signal.SIGINT)
        assert read(service) == "draining"
        service.send_signal(signal.SIGTERM)
        service.send_signal(signal.SIGTERM)
        assert service.wait(10) == 7


def test_a_second_sigint_ends_it_now() -> None:
    with start(60) as service:
        assert read(service) == "ready"
        service.send_signal(signal.SIGINT)
        assert read(service) == "draining"
        service.send_signal(signal.SIGINT)
        assert service.wait(10) != 7


def test_the_loop_is_uvloop() -> None:
    async def main(stop: asyncio.Event) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        return int(isinstance(asyncio.get_running_loop(), uvloop.Loop))

    assert run(main) == 1
