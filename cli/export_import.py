"""`coordinator export` and `coordinator import`: a whole node as one file, and a node's directory out of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from coordinator.cli.dotenv_values import read_values
from coordinator.cli.lazy_groups import EXIT_DIFFERENT
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    NodeFile,
    node_of,
    print_json,
    quiet_libraries,
    run,
    write_node_file,
)
from coordinator.cli.terminal import Console, progress_bar
from coordinator.cli.up_plan import CHOSEN_BY_US
from coordinator.infra.fetch import ensure_runtime, progress_bars
from coordinator.infra.moving.export_file import SETTINGS, ExportFile, Manifest
from coordinator.infra.moving.exporting import write_export
from coordinator.infra.moving.importing import fill, new_data_dir
from coordinator.infra.whole_file import check_to_write
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import read_settings

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The file that holds the node.")]


def export_node(
    file: FileArgument, kafka: KafkaOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Write the whole node into one file: its log, contracts and settings. The file holds no key and no password.

    The node may be running or stopped. Type this in the node's folder, as for `up`: settings come from the
    environment and `.env`. The file is written completely or not at all. A lost table or answer is named and left
    out, and the exit code is then 1. Secrets and files of this machine are left out on purpose, and listed by name.

    Example: [bold]coordinator export btc-up.node --data-dir node[/bold]
    """
    check_to_write(file)
    settings, _ = node_log(data_dir, kafka)
    with progress_bar("records") as on_progress:
        manifest = run(write_export(settings, os.environ, file, on_progress))
    if as_json:
        print_json({"file": str(file)} | msgspec.to_builtins(manifest))
    else:
        typer.echo(
            f"{file}: {file.stat().st_size:,} bytes, {manifest.records:,} records of crunch {manifest.crunch_id}, "
            f"{manifest.blobs:,} of them blobs, sha256 {manifest.sha256}"
        )
        _say_left_out(manifest)
        for reason in manifest.lost:
            typer.echo(f"left out: {reason}", err=True)
    if manifest.lost:
        raise typer.Exit(EXIT_DIFFERENT)


def import_node(
    file: FileArgument,
    into: Annotated[
        Path | None,
        typer.Option("--into", help="An empty or a new directory. Default: DATA_DIR, else coordinator-data."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a node's data directory from an export: `coordinator up` continues from there.

    The file's hash is checked first: a file that was cut short or altered is refused, and nothing is written. The
    directory appears only after its log was read again and equals the exported one, byte for byte. First stop the old
    node for good: two nodes that continue one log offer the same payments twice.

    Examples: [bold]coordinator import btc-up.node[/bold],
    [bold]coordinator import btc-up.node --into /srv/node && coordinator up --data-dir /srv/node[/bold]
    """
    target = (into or read_settings(os.environ).data_dir).absolute()
    quiet_libraries()
    with progress_bar("bytes hashed") as on_bytes:
        export = ExportFile(file, on_bytes)
    manifest, node = export.manifest, _node_file(export)
    with new_data_dir(target, manifest.crunch_id) as work:
        with progress_bars(Console(stderr=True)) as on_fetch:
            ensure_runtime(on_fetch)
        bootstrap = fill(export, work, progress_bar)
        write_node_file(work, msgspec.structs.replace(node, bootstrap=bootstrap))
    if as_json:
        print_json({"data_dir": str(target)} | msgspec.to_builtins(manifest))
        return
    typer.echo(
        f"{target}: crunch {manifest.crunch_id}, {manifest.records:,} records, sha256 {manifest.sha256} as exported\n"
        f"its settings: {target / SETTINGS}; copy what you need into the `.env` of the folder in which you run the node"
    )
    _say_left_out(manifest)
    typer.echo(f"next:  coordinator up --data-dir {target}")


def _node_file(export: ExportFile) -> NodeFile:
    """What an `up` would have left, but for Kafka's address: other commands find the node by it, and the next `up` goes
    on with its feed. Raises OperatorError for settings that cannot be read.
    """
    try:
        values = read_values(export.settings, {})
    except ValueError as error:
        raise OperatorError(f"{export.path}: {SETTINGS}, {error}") from None
    settings = read_settings(values)
    return msgspec.structs.replace(
        node_of(settings),
        crunch_id=export.manifest.crunch_id,
        feed_chosen=settings.feed_source in CHOSEN_BY_US,
        feed={name: text for name, text in values.items() if name.startswith("FEED_")},
    )


def _say_left_out(manifest: Manifest) -> None:
    """On stderr, what somebody has to bring along by hand."""
    if manifest.secrets_left_out:
        typer.echo(f"secrets that are not in it: {', '.join(manifest.secrets_left_out)}", err=True)
    if manifest.machine_left_out:
        typer.echo(
            f"places of the old machine, as comments: {', '.join(manifest.machine_left_out)}", err=True
        )
    typer.echo(
        "the key that signs notes is not in it: copy `evidence/key` and `evidence/keys/` from the old data "
        "directory, or set EVIDENCE_KEY",
        err=True,
    )
