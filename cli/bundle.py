"""`coordinator bundle`: all that a payout depends on, in one file that a stranger can judge offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, print_json, run
from coordinator.cli.terminal import progress_bar
from coordinator.infra.evidence.bundling import KafkaSource, write_bundle
from coordinator.streams.log.errors import OperatorError


def bundle(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Its id, as `checkpoint list` has it.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The file to write, over one that is there.")
    ],
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all that a checkpoint depends on into one file: `coordinator verify FILE` judges it without this node.

    The log up to the checkpoint, append by append, the contracts in it, the tree's hashes, the signed note, and what is
    paid. It is written as a whole or not at all.

    Example: [bold]coordinator bundle ckp_1f0c5d2e --out june.bundle --data-dir node[/bold]
    """
    if not out.absolute().parent.is_dir():
        raise OperatorError(f"there is no folder {out.absolute().parent}")
    settings, _ = node_log(data_dir, kafka)
    with progress_bar("records") as on_read:
        source = KafkaSource(settings.kafka_bootstrap, settings.crunch_id, on_read)
        bundled = run(write_bundle(settings, source, checkpoint, out))
    if as_json:
        print_json(bundled)
        return
    typer.echo(
        f"{out}: {out.stat().st_size:,} bytes, {bundled.appends:,} appends, a tree of {bundled.leaves:,} leaves\n"
        f"judge it anywhere: coordinator verify {out}"
    )
