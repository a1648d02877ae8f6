"""`coordinator evidence ...`: the key that signs the notes about the log."""

from __future__ import annotations

from functools import partial

import typer

from coordinator.cli.own_kafka import node_log, refuse_undecided
from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, print_json, run
from coordinator.infra.evidence.rotating import rotate
from coordinator.infra.log.commands import send_command
from coordinator.streams.clock import wall_ms

app = typer.Typer(no_args_is_help=True, help="The key that signs the notes about the log.")


@app.callback()
def _group() -> None:
    """The key that signs the notes about the log."""


@app.command("rotate-key")
def rotate_key(
    kafka: KafkaOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Make a new key, which signs the notes about the log from now on.

    The rotation is an event in the log, signed by both keys. So whoever trusts the old key follows to the new one by
    `coordinator verify`, with the same policy file. Earlier notes stay as they are. The old key signs nothing more.

    Run it where the report worker's data directory is; back up the new file. If the old key leaked, also tell
    everybody who verifies to use the new public key instead of the old one (docs/how-to/evidence.md).

    Example: [bold]coordinator evidence rotate-key --data-dir node[/bold]
    """
    settings, _ = node_log(data_dir, kafka)
    send = partial(send_command, settings.kafka_bootstrap, settings.crunch_id)
    rotated = run(rotate(settings, send, wall_ms(), partial(refuse_undecided, settings)))
    if as_json:
        print_json(rotated)
        return
    typer.echo(
        f"rotated from {rotated.old_key}\n"
        f"          to {rotated.new_key}\n"
        f"the new key is {rotated.file}: back it up; it signs from the next checkpoint"
    )
