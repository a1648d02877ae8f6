"""`coordinator bundle`: all that a payout depends on, in one file that a stranger can judge offline."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.evidence_out import OutOption, source_for
from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, print_json, run
from coordinator.infra.evidence.bundling import write_bundle


def bundle(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Its id, as `checkpoint list` has it; `latest` is the newest one offered.",
        ),
    ],
    out: OutOption,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help=(
                "Include the log from its first append, so that nothing is taken on trust: every payout in "
                "it is checked."
            ),
        ),
    ] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write everything that a checkpoint depends on into one file: `coordinator verify FILE` checks it without this
    node.

    The file holds the log up to the checkpoint, append by append, its contracts, the tree's hashes, the signed note,
    and the payout. The log in it begins with the oldest record that the period's windows need; with --whole it begins
    with the first append. The file is written completely or not at all.

    Example: [bold]coordinator bundle ckp_1f0c5d2e --out june.bundle --data-dir node[/bold]
    """
    with source_for(out, data_dir, kafka) as (settings, source):
        bundled = run(write_bundle(settings, source, checkpoint, out, whole=whole))
    if as_json:
        print_json(bundled)
        return
    typer.echo(
        f"{out}: {out.stat().st_size:,} bytes, {bundled.appends:,} appends, a tree of {bundled.leaves:,} leaves"
        f"{f', begins after {bundled.after}' if bundled.after else ''}\n"
        f"verify it anywhere: coordinator verify {out}"
    )
