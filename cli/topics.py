"""`coordinator topics create|list|backup|restore`: the crunch's topics on a broker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    node_settings,
    print_json,
    record_bar,
    run,
)
from coordinator.streams.errors import OperatorError

app = typer.Typer(no_args_is_help=True, help="Make or look at the crunch's topics.")


@app.command("create")
def create(
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    replication: Annotated[
        int, typer.Option(min=1, help="Copies of each topic; 3 survives the loss of a broker.")
    ] = 1,
) -> None:
    """Make the topics that are missing: one partition each, kept for ever. Doing it again changes nothing.

    Example: [bold]CRUNCH_ID=btc-up coordinator topics create --kafka kafka-1:9092 --replication 3[/bold]
    """
    from coordinator.infra.topics import create_topics  # noqa: PLC0415

    settings, _ = node_settings(data_dir, kafka)
    run(create_topics(settings.kafka_bootstrap, settings.crunch_id, replication))
    typer.echo(f"the topics of crunch {settings.crunch_id} are on {settings.kafka_bootstrap}")


@app.command("list")
def list_(
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the topics with their offsets, the missing ones too, and every setting that is not ours.

    Example: [bold]coordinator topics list --json[/bold]
    """
    settings, _ = node_settings(data_dir, kafka)
    found = run(_list(settings.kafka_bootstrap, settings.crunch_id))
    if as_json:
        print_json({"bootstrap": settings.kafka_bootstrap, "crunch_id": settings.crunch_id, "topics": found})
        return
    from rich.table import Table  # noqa: PLC0415

    from coordinator.cli.terminal import Console  # noqa: PLC0415

    table = Table(
        "topic", "first", "end", "remarks", title=f"{settings.crunch_id} on {settings.kafka_bootstrap}"
    )
    for one in found:
        remarks = "; ".join(one.mismatches) if one.partitions else "missing: `coordinator topics create`"
        table.add_row(one.name, str(one.start_offset), str(one.end_offset), remarks)
    Console().print(table)


@app.command("backup")
def backup(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Default: standard output.")] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Copy every record of every topic into one file, while the node runs.

    Example: [bold]coordinator topics backup btc-up.backup[/bold]
    """
    from coordinator.infra.log_copy import write_backup  # noqa: PLC0415

    settings, _ = node_settings(data_dir, kafka)
    if file is None and sys.stdout.isatty():
        raise OperatorError("name a file, or send standard output into one")
    with record_bar() as on_progress:
        if file is None:
            tail = run(
                write_backup(settings.kafka_bootstrap, settings.crunch_id, sys.stdout.buffer, on_progress)
            )
        else:
            partial = file.with_name(file.name + ".partial")
            with partial.open("wb") as out:
                tail = run(write_backup(settings.kafka_bootstrap, settings.crunch_id, out, on_progress))
            partial.replace(file)
    typer.echo(f"{tail.records:,} records, sha256 {tail.sha256}", err=True)


@app.command("restore")
def restore(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Default: standard input.")] = None,
    other_crunch: Annotated[
        bool, typer.Option("--other-crunch", help="Take a backup of another CRUNCH_ID too, to look into it.")
    ] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Put a backup into empty topics, each record at the offset that it had. Nothing else may write there meanwhile.

    Example: [bold]coordinator topics create && coordinator topics restore btc-up.backup[/bold]
    """
    from coordinator.infra.log_copy import read_backup  # noqa: PLC0415

    settings, _ = node_settings(data_dir, kafka)
    if file is not None and not file.is_file():
        raise OperatorError(f"there is no file {file}")
    source = sys.stdin.buffer if file is None else file.open("rb")
    with source, record_bar() as on_progress:
        tail = run(
            read_backup(
                settings.kafka_bootstrap, settings.crunch_id, source, on_progress, other_crunch=other_crunch
            )
        )
    typer.echo(f"{tail.records:,} records restored, sha256 {tail.sha256}", err=True)


async def _list(bootstrap: str, crunch_id: str) -> list[Any]:
    from coordinator.infra.positions import reading  # noqa: PLC0415
    from coordinator.infra.topics import list_topics  # noqa: PLC0415

    async with reading(bootstrap):  # says at once when nobody is there; `list_topics` would wait for a broker
        return list(await list_topics(bootstrap, crunch_id))
