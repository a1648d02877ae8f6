"""`coordinator topics create|list`: the crunch's topics on a broker."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, node_settings, print_json, run

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
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(
        "topic", "first", "end", "remarks", title=f"{settings.crunch_id} on {settings.kafka_bootstrap}"
    )
    for one in found:
        remarks = "; ".join(one.mismatches) if one.partitions else "missing: `coordinator topics create`"
        table.add_row(one.name, str(one.start_offset), str(one.end_offset), remarks)
    Console().print(table)


async def _list(bootstrap: str, crunch_id: str) -> list[Any]:
    from coordinator.infra.positions import reading  # noqa: PLC0415
    from coordinator.infra.topics import list_topics  # noqa: PLC0415

    async with reading(bootstrap):  # says at once when nobody is there; `list_topics` would wait for a broker
        return list(await list_topics(bootstrap, crunch_id))
