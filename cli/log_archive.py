"""`coordinator log archive|restore`: closed periods of the log as files, and a backup of these files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    parse_time,
    print_done,
    run,
    time_text,
)
from coordinator.cli.terminal import progress_bar
from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.log.archive_restoring import write_restored
from coordinator.infra.log.archiving import Archived, OnProgress, write_archive
from coordinator.infra.log.copy import KafkaRecords
from coordinator.infra.whole_file import check_to_make, check_to_write
from coordinator.streams.log.errors import OperatorError


def archive(
    until: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT|TIME",
            help="The last checkpoint, by its id; or those whose period ended by this time: ISO 8601 with a zone, or "
            "epoch ms.",
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="The folder of the files; made if missing.")
    ],
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the log of closed periods into files, one for each checkpoint that is paid. The topics stay as they are.

    Every record is copied unchanged. The files are chained by hashes and hold the node's signed note of the tree, so
    an archive proves itself. Existing files are checked and skipped, so the command continues where it stopped.

    Example: [bold]coordinator log archive --until 2026-11-01T00:00:00Z --to archive --data-dir node[/bold]
    """
    wanted: str | int = until if until.startswith("ckp_") else parse_time(until)
    check_to_make(to)
    settings, _ = node_log(data_dir, kafka)
    if not settings.data_dir.is_dir():
        raise OperatorError(
            f"there is no data directory {settings.data_dir}, and it should hold the signing key"
        )
    to.mkdir(parents=True, exist_ok=True)

    async def write(on_progress: OnProgress) -> Archived:
        source = await KafkaRecords.open(settings.kafka_bootstrap, settings.crunch_id)
        return await write_archive(settings, source, to, wanted, store_of(settings), on_progress)

    with progress_bar("records") as on_progress:
        archived = run(write(on_progress))
    text = f"{to}: {archived.files:,} periods, {archived.written:,} of them new, with {archived.records:,} records"
    if archived.open_checkpoint:
        text += f"\n{archived.open_checkpoint} is not paid yet: nothing from its period on is copied"
    elif not archived.files:
        text += "\nnothing is copied: " + (
            "no checkpoint was opened yet"
            if archived.first_end_ms is None
            else f"the first checkpoint's period ends {time_text(archived.first_end_ms)}"
        )
    print_done(text, {"folder": str(to), **msgspec.structs.asdict(archived)}, as_json=as_json)


def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of `log archive`.")],
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", help="The backup to write, over one that is there.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Check the files of an archive, and make one backup from them, like one of `topics backup`.

    `topics restore` puts it into a new data directory, `backtest --log` plays it. A file that is missing, cut or
    altered is named, and nothing is written.

    Example: [bold]coordinator log restore archive --to earlier.backup[/bold]
    """
    check_to_write(to)
    with progress_bar("files") as on_progress:
        tail = write_restored(folder, to, on_progress)
    text = f"{to}: {tail.records:,} records, {tail.blobs:,} of them blobs, sha256 {tail.sha256}"
    print_done(
        text,
        {"file": str(to), "records": tail.records, "blobs": tail.blobs, "sha256": tail.sha256},
        as_json=as_json,
    )
