"""Notes whose answer a process is judging, where the note outlives the process: so a crash names the model.

Writes one page of a file through shared memory: an answer costs a microsecond, and the page stays when the process is
killed. Reads, when opened, what the process before left there.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

PAGE_BYTES = 4096

log = structlog.get_logger()


class CrashNotes:
    """One at a time, whichever thread. Where the file cannot be written it holds nothing, and says so once."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._page: mmap.mmap | None = None
        self.left_behind = ""
        """The model whose answer the process before had in its hands when it died; empty where it died of another."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            with path.open("r+b", buffering=0) as file:
                # Written, not only made longer: a page without a block kills who touches it once the disk is full.
                before = file.read(PAGE_BYTES)
                file.seek(0)
                file.write(before.ljust(PAGE_BYTES, b"\0"))
                self._page = mmap.mmap(file.fileno(), PAGE_BYTES)
        except OSError as error:
            log.warning("in_hand_not_kept", path=str(path), error=str(error))
            return
        size = self._page[0]
        self.left_behind = self._page[1 : 1 + size].decode(errors="replace")
        self._page[0] = 0

    @contextmanager
    def holding(self, model_id: str) -> Iterator[None]:
        """A context in which the answer of `model_id` is judged."""
        if self._page is None:
            yield
            return
        name = model_id.encode()[:255]
        with self._lock:
            self._page[1 : 1 + len(name)] = name
            self._page[0] = len(name)  # last: a page that is half written names nobody
            try:
                yield
            finally:
                self._page[0] = 0
