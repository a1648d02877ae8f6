"""What bounds a process: it dies with its parent, has a memory ceiling, and a clock on every call.

Only the standard library, and nothing of this package: a model's process must stay small.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_HARD_LIMIT = 97
PR_SET_PDEATHSIG = 1
MB = 1024 * 1024
FILES_MAX = 1024
NICENESS = 5
"""A model that computes all the time takes the cores that the node leaves, not those that it needs."""


def die_with_parent(parent_pid: int, death_signal: int = signal.SIGKILL) -> None:
    """Ask the kernel (Linux only) to signal this process when its parent dies; exit if it already has.

    Elsewhere only the check is made; `CallClock` repeats it for a model's process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def limit_resources(memory_limit_mb: int, disk_limit_mb: int = 0) -> None:
    """Cap the address space and the size of a file (0: no cap) and the open files, forbid core files, be nice.

    Beyond the caps a model gets MemoryError and OSError. What several of its processes or files come to together is
    watched from outside (`usage.py`).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = min(FILES_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    for which, megabytes in ((resource.RLIMIT_AS, memory_limit_mb), (resource.RLIMIT_FSIZE, disk_limit_mb)):
        if megabytes > 0:
            resource.setrlimit(which, (megabytes * MB, megabytes * MB))
    os.nice(NICENESS)


class CallClock:
    """Ends the process when one call runs longer than its hard limit. The client's deadline frees the coordinator but
    not the model: without this limit a hanging model would answer "busy" without end. A Python thread checks the time.
    A timer in C, renewed at each check, is the fallback for a model that never releases the interpreter's lock.
    """

    def __init__(self, parent_pid: int, idle_limit_seconds: float) -> None:
        self._parent_pid = parent_pid
        self._idle_limit_seconds = idle_limit_seconds
        self._ends_at: float | None = None
        self._call = ""
        self._look_seconds = min(0.5, idle_limit_seconds / 4)

    def start(self) -> None:
        """Begin looking, in a daemon thread."""
        threading.Thread(target=self._watch, name="call-clock", daemon=True).start()

    @contextmanager
    def running(self, call: str, limit_seconds: float) -> Iterator[None]:
        """A context in which `call` may take `limit_seconds`."""
        self._call = call
        self._ends_at = time.monotonic() + limit_seconds
        try:
            yield
        finally:
            self._ends_at = None

    def _watch(self) -> None:
        while True:
            ends_at = self._ends_at
            now = time.monotonic()
            if ends_at is not None and now > ends_at:
                sys.stderr.write(f"[child] {self._call} ran past its hard limit: ending this process\n")
                sys.stderr.flush()
                os._exit(EXIT_HARD_LIMIT)
            if os.getppid() != self._parent_pid:
                os._exit(1)
            left = self._idle_limit_seconds if ends_at is None else ends_at - now
            faulthandler.dump_traceback_later(max(left, self._idle_limit_seconds) + 2, exit=True)
            time.sleep(self._look_seconds)
