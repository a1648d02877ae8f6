"""Files that appear whole or not at all, so that nobody reads a half of one, whenever its writer is killed."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, then put it there in one step, also if another process does the same meanwhile.

    It is not forced to the disk: what must outlast a power cut does that itself. Raises OSError.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
