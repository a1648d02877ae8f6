"""Fills an empty data directory from an export. The directory appears once everything in it is right, or not at all.

The work is done in a hidden folder beside it, with a Kafka of its own. Afterwards the log there is read again: its
records and blobs must have the hash that they had when they were exported. A folder that a killed import left is
removed by the next one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from coordinator.infra.blobs.folder import FOLDER, BlobFolder
from coordinator.infra.contracts.archive import ArchiveFolder
from coordinator.infra.kafka.running_broker import running_broker
from coordinator.infra.log.cluster_state import look_at_log
from coordinator.infra.log.copy import OnProgress, read_backup, write_backup
from coordinator.infra.log.memory import LogMemoryFile
from coordinator.infra.moving.export_file import SETTINGS, ExportFile
from coordinator.infra.processes.data_dir import FILE_SYSTEMS, claim_data_dir, holder_of
from coordinator.streams.log.errors import LogError, OperatorError
from coordinator.streams.log.integrity import check_log

Progress = Callable[[str], AbstractContextManager[OnProgress]]
"""Label -> the bar of one part of the work."""


@contextmanager
def new_data_dir(target: Path, crunch_id: str) -> Iterator[Path]:
    """The folder to fill. It becomes `target` when the block ends well. Raises OperatorError: `target` is not empty."""
    if os.path.lexists(target) and (not target.is_dir() or _holds(target)):
        raise OperatorError(
            f"{target} is not an empty directory{_holds(target)}: give an empty or a new directory with --into DIR"
        )
    if os.path.ismount(target):
        raise OperatorError(
            f"{target} is the root of a file system: name a new folder in it, --into {target}/node"
        )
    pattern = f".{target.name}.importing-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{pattern}*"):
            if holder_of(left) is None:
                shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=pattern, dir=target.parent))
    except OSError as error:
        raise OperatorError(f"{target} cannot be made: {error.strerror or error}") from error
    try:
        with claim_data_dir(work, crunch_id):
            yield work
            try:
                work.rename(target)  # in the place of an empty directory, too
            except OSError as error:
                raise OperatorError(
                    f"{target} was filled by another process in the meantime: {error.strerror or error}"
                ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _holds(target: Path) -> str:
    """` (it holds NAME)`, of the first thing that is not the file system's own; "" for an empty directory."""
    if not target.is_dir():
        return ""
    names = sorted(path.name for path in target.iterdir() if path.name not in FILE_SYSTEMS)
    return f" (it holds {names[0]})" if names else ""


def fill(export: ExportFile, work: Path, progress: Progress) -> str:
    """Put the log, the contracts and the settings of an export into `work`; returns the address its Kafka had.

    Raises LogError (the log in it is not what was exported), OperatorError, WorldError.
    """
    with running_broker(work / "kafka") as broker, Path(os.devnull).open("wb") as nowhere:
        asyncio.run(_restore(export, work, broker.bootstrap, progress, nowhere))
    archives = ArchiveFolder(work)
    for contract_hash, content in export.contracts():
        archives.put(contract_hash, content)
    (work / SETTINGS).write_bytes(export.read(SETTINGS))
    return broker.bootstrap


async def _restore(
    export: ExportFile, work: Path, bootstrap: str, progress: Progress, nowhere: IO[bytes]
) -> None:
    crunch_id, blobs = export.manifest.crunch_id, BlobFolder(work / FOLDER)
    with progress("records") as on_progress, export.log() as source:
        await read_backup(bootstrap, crunch_id, source, on_progress, blobs)
    with progress("records compared") as on_progress:
        again = await write_backup(bootstrap, crunch_id, nowhere, on_progress, blobs, compress_level=0)
    if (again.records, again.sha256) != (export.manifest.records, export.manifest.sha256):
        raise LogError(
            f"{export.path}: the log that was written is not the exported one ({again.records} records, sha256 "
            f"{again.sha256}); nothing was imported"
        )
    log_found = await look_at_log(bootstrap, crunch_id)
    memory = LogMemoryFile(work, crunch_id)
    memory.write(log_found, check_log(crunch_id, log_found, None, bootstrap), anew=True)
