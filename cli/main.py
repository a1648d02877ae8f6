"""`coordinator`: the command line. One module for each command; this one only puts them together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli import (
    checkpoint,
    contract,
    dead_letters,
    deploy_files,
    doctor,
    feeds,
    init,
    keys,
    log,
    models,
    replay,
    status,
    topics,
    topology,
    up,
    verify_e2e,
    worker,
)
from coordinator.cli.node_folder import take_over_settings
from coordinator.cli.shared import ClearErrors

app = typer.Typer(
    cls=ClearErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "A crunch coordinator as a log of events: feeds in, scored predictions, a leaderboard and an exact emission "
        "out.\n\n"
        "[bold]coordinator up[/bold] runs a whole node here, with its own Kafka, example models and a page to "
        "look at.\n\n"
        "[bold]coordinator init NAME[/bold] makes a workspace for a challenge of your own.\n\n"
        "Settings come from the environment (CRUNCH_ID, KAFKA_BOOTSTRAP, FEED_SUBJECTS, "
        "CHECKPOINT_INTERVAL_SECONDS, ...), and where that says nothing from `.env` in the current folder.\n\n"
        "Exit codes: 0 done, 1 a difference, a fault that was found, a name refused, 2 yours to mend (the message says "
        "what), 3 the world did not answer."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        typer.echo(version("coordinator-node"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001 - eager: its own callback has ended the program by then
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options that stand before a command."""
    take_over_settings(os.environ, Path.cwd())


app.command("init")(init.init)
app.command("demo")(init.demo)
app.command("packs")(init.list_packs)
app.command("up")(up.up)
app.command("worker")(worker.worker)
app.command("status")(status.status)
app.command("preflight")(doctor.preflight)
app.command("doctor")(doctor.doctor)
app.command("replay")(replay.replay)
app.command("topology")(topology.topology)
app.command("verify-e2e")(verify_e2e.verify_e2e)
app.command("deploy-files")(deploy_files.deploy_files)
app.add_typer(contract.app, name="contract")
app.add_typer(topics.app, name="topics")
app.add_typer(log.app, name="log")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(feeds.app, name="feeds")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(checkpoint.app, name="checkpoint")


def main() -> None:
    """The console script's entry point."""
    app()


if __name__ == "__main__":
    main()
