"""`coordinator topology`: which stage writes which topic, driven by what, from the one table in code."""

from __future__ import annotations

import typer
from rich.table import Table

from coordinator.cli.shared import JsonOption, print_json
from coordinator.cli.terminal import Console
from coordinator.streams.topology import STREAMS, mermaid


def topology(as_json: JsonOption = False) -> None:
    """Print the stages and topics as a table, and as a Mermaid diagram (paste it into any Markdown).

    Example: [bold]coordinator topology --json | jq '.streams[].topic'[/bold]
    """
    if as_json:
        print_json({"streams": STREAMS, "mermaid": mermaid()})
        return

    table = Table("topic", "written by", "driven by", "reads", "events", show_lines=True)
    for stream in STREAMS:
        table.add_row(
            stream.topic,
            stream.writer,
            ", ".join(stream.driven_by),
            ", ".join(stream.reads),
            ", ".join(stream.events),
        )
    Console().print(table)
    typer.echo(mermaid(), nl=False)
