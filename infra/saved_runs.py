"""States of runs of the recorded rules, in the folder `runs` of the data directory: plans and shadows continue from
there.

They are a cache: without them a plan, a shadow or a correction begins at the first event and decides the same.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import msgspec

from coordinator.infra.whole_file import write_whole
from coordinator.streams.engine.rerun import SavedRun

FOLDER = "runs"
KEPT_MAX = 4
"""The newest ones that are kept."""
FILE_BYTES_MAX = 1024 * 1024 * 1024


class SavedRuns:
    """The states that were kept of one log. A file of another log or version is passed over."""

    def __init__(self, data_dir: Path, log_identity: str) -> None:
        self._folder = data_dir / FOLDER
        self._head = f"{log_identity} {version('coordinator-node')}".encode()

    def before(self, until_ms: int) -> SavedRun | None:
        """The latest readable state from before `until_ms`; None if there is none."""
        runs: list[SavedRun] = []
        for path in self._files():
            if path.stat().st_size > FILE_BYTES_MAX:
                continue
            head, _, content = path.read_bytes().partition(b"\n")
            if head != self._head:
                continue
            try:
                runs.append(msgspec.msgpack.decode(content, type=SavedRun))
            except msgspec.DecodeError:
                continue  # of another format: an unreadable cache entry is skipped
        return max((run for run in runs if run.clock < until_ms), key=_clock, default=None)

    def put(self, run: SavedRun) -> None:
        """Keep a state, and drop all but the newest ones."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._folder / f"{run.clock}.run", self._head + b"\n" + msgspec.msgpack.encode(run))
        for path in sorted(self._files(), key=lambda path: path.stat().st_mtime_ns)[:-KEPT_MAX]:
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.run"))


def _clock(run: SavedRun) -> int:
    return run.clock
