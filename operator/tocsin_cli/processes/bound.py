"""`python -m tocsin_cli.processes.bound PARENT COMMAND...`: run a `tocsin` command that dies with its parent.

Two nets, because either has a hole. Linux kills us when the parent's thread ends (PR_SET_PDEATHSIG), even if we hang
in C code; macOS has no such call. Standard input is a pipe whose other end only the parent holds: its end of file is
the parent's end on every system. A parent that cleans up in `atexit` was refused: kill -9 runs no cleanup.
The exit is hard on purpose: when the parent was killed, the Kafka it ran is gone too, and draining would wait for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from importlib import import_module

PR_SET_PDEATHSIG = 1
ORPHANED_EXIT_CODE = 113


def bind_to_parent(parent_id: int) -> None:
    """Make this process end when the process `parent_id`, which holds our standard input's pipe, ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_id:  # it ended before we asked to be told
        os._exit(ORPHANED_EXIT_CODE)
    threading.Thread(target=_exit_at_end_of_input, name="parent-watch", daemon=True).start()


def _exit_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(ORPHANED_EXIT_CODE)


def main(arguments: list[str]) -> int:
    """Bind to the parent, then run `MODULE WORDS...`: the module's `main(words)`; return its exit code."""
    parent_id, module, *words = arguments
    bind_to_parent(int(parent_id))
    return int(import_module(module).main(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
