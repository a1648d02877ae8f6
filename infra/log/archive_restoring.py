"""One backup out of the files of an archive: what `topics restore` and `backtest --log` read.

Reads the files twice: once to judge all of them, once to write. The backup appears whole or not at all.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

from coordinator.infra.log.archive_file import Judge, encode, files_in
from coordinator.infra.log.copy_file import FORMAT, CopiedBlob, Head, Tail, framed
from coordinator.infra.whole_file import writing_whole
from coordinator.streams.log.errors import OperatorError


def write_restored(folder: Path, path: Path, on_progress: Callable[[int, int], None]) -> Tail:
    """Write the backup. Raises OperatorError, LogError naming the file that is missing, cut or altered."""
    files, judge = files_in(folder), Judge()
    for number, file in enumerate(files, start=1):
        for _ in judge.read(file):
            pass
        on_progress(number, 2 * len(files))
    head = judge.head
    if head is None:
        raise OperatorError(f"{folder} holds no archive: create one with `coordinator log archive`")
    count = blobs = 0
    digest = hashlib.sha256()
    with writing_whole(path) as out, gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as backup:

        def put(encoded: bytes) -> None:
            backup.write(framed(encoded))

        put(encode(Head(FORMAT, head.crunch_id, head.birth_id, head.ends)))
        again = Judge()
        for number, file in enumerate(files, start=1):
            for entry in again.read(file):
                encoded = encode(entry)
                digest.update(encoded)
                put(encoded)
                count += 1
                blobs += isinstance(entry, CopiedBlob)
            on_progress(len(files) + number, 2 * len(files))
        tail = Tail(count, digest.hexdigest(), blobs)
        put(encode(tail))
    return tail
