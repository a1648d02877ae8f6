"""`coordinator dead-letters list|show`: what came from outside and could not be read."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from coordinator.cli.letters import read_letters
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    print_json,
    run,
    time_text,
)
from coordinator.cli.terminal import Console
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.reasons import printable

app = typer.Typer(no_args_is_help=True, help="Look at what was set aside because it could not be read.")


@app.command("list")
def list_(
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, newest first: where each came from and why it was refused.

    Example: [bold]coordinator dead-letters list --limit 5[/bold]
    """
    letters = _letters(data_dir, kafka)
    shown = letters[::-1][:limit]
    if as_json:
        print_json({"total": len(letters), "dead_letters": shown})
        return

    table = Table("id", "at", "origin", "position", "reason", title=f"{len(letters)} dead letters")
    for letter in shown:
        table.add_row(
            letter["id"], time_text(letter["at"]), letter["origin"], letter["position"], letter["reason"]
        )
    Console().print_rows(table, "no dead letter: all that came from outside could be read")


@app.command("show")
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The id, or its beginning.")],
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter with the first 1,000 characters of what it held.

    Example: [bold]coordinator dead-letters show dead/1f0c[/bold]
    """
    letters = [letter for letter in _letters(data_dir, kafka) if letter["id"].startswith(letter_id)]
    if not letters:
        raise OperatorError(
            f"no dead letter's id begins with {letter_id!r}; see `coordinator dead-letters list`"
        )
    if len(letters) > 1:
        raise OperatorError(
            f"{len(letters)} dead letters' ids begin with {letter_id!r}: give more characters"
        )
    if as_json:
        print_json(letters[0])
        return
    for name, value in letters[0].items():
        text = time_text(value) if name == "at" else printable(str(value), lines=True)
        typer.echo(f"{name + ':':<10}{text}")


def _letters(data_dir: Any, kafka: str | None) -> list[dict[str, Any]]:
    settings, _ = node_log(data_dir, kafka)
    return run(read_letters(settings.kafka_bootstrap, settings.crunch_id))
