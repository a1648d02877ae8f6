"""`coordinator log give-up`: the operator's word that nobody has a blob any more, so that its alert ends."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    node_settings,
    print_done,
    reason_words,
    time_text,
)
from coordinator.infra.blobs.store_by_settings import is_shared, store_of
from coordinator.infra.processes.data_dir import MARKER
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import OperatorError


def give_up(
    sha256: Annotated[str, typer.Argument(metavar="SHA256", help="Which blob: the alert's text has it.")],
    reason: Annotated[str, typer.Option(help="What became of it: for whoever looks for it later.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that nobody has a lost blob any more: its alert ends with the next look at the blobs.

    The word is kept in the store, as the file `given-up/SHA256`: remove that file to take it back. The log stays as it
    is. What was stopped by the loss stays stopped. A store that has the blob again is used as before, and the node
    removes the file, so that another loss raises the alert again.

    Example: [bold]coordinator log give-up 9f86d081.. --reason "the disk of May, no backup" --data-dir node[/bold]
    """
    reason = reason_words(reason)
    settings, _ = node_settings(data_dir)
    if not is_shared(settings) and not (settings.data_dir / MARKER).is_file():
        raise OperatorError(
            f"the node's blobs are in its data directory, and {settings.data_dir} is none: give --data-dir, or set "
            "BLOBS_URL as the node has it"
        )
    store_of(settings).give_up(sha256, f"{time_text(wall_ms())} {reason}\n")
    print_done(
        f"blob {sha256} is given up: its alert ends once all blobs were looked at again",
        {"sha256": sha256},
        as_json=as_json,
    )
