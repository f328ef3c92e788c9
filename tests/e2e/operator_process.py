"""The operator as a process of this machine, against the offered cluster: what `python -m tocsin_operator` is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self
from uuid import uuid4

LEASE = "tocsin-operator"


class OperatorProcess:
    """One instance, for one namespace, whose Lease is there too. Its log is kept for when a test fails."""

    def __init__(self, namespace: str, log_path: Path, **variables: str) -> None:
        self.identity = f"test-{uuid4().hex[:8]}"
        self._log_path = log_path
        self._environment = {
            **os.environ,
            "TOCSIN_OPERATOR_IDENTITY": self.identity,
            "TOCSIN_OPERATOR_WATCH_NAMESPACES": namespace,
            "TOCSIN_OPERATOR_NAMESPACE": namespace,
            "TOCSIN_OPERATOR_HEALTH_PORT": "0",
            **{f"TOCSIN_OPERATOR_{name.upper()}": value for name, value in variables.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tocsin_operator"], env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self.stop()

    @property
    def log(self) -> str:
        """Return what it said so far."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def pause(self) -> None:
        """Stop its clock: a machine that swaps, a virtual machine that moves."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def stop(self, *, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit code; stopping twice is fine."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(with_signal)
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
