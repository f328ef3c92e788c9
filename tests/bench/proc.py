"""What the kernel has counted for a process and all its threads: proc(5), /proc/PID/stat and /proc/PID/status."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
UTIME, STIME = 11, 12
"""Counted from the field after the program's name, which may hold spaces."""
MEGABYTE_KIB = 1_024


def read_cpu_seconds(process_id: int) -> float:
    """Return user and system time, in steps of a hundredth of a second."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[UTIME]) + int(fields[STIME])) / TICKS_PER_SECOND


def read_resident_megabytes(process_id: int) -> float:
    """Return the resident memory."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / MEGABYTE_KIB
    return 0.0


def describe_machine() -> str:
    """Return processor, cores, kernel, and the Python: which one it is decides a fifth of what Tocsin costs."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    machine = f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    return f"{machine}, Python {platform.python_version()} of {sys.base_prefix}"
