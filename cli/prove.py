"""`coordinator prove`: one prediction's answer, truth and score, proved to be in the tree of a signed note."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import DataDirOption, KafkaOption, run
from coordinator.cli.terminal import progress_bar
from coordinator.infra.evidence.bundling import KafkaSource
from coordinator.infra.evidence.proving import write_proof
from coordinator.streams.log.errors import OperatorError


def prove(
    prediction: Annotated[
        str, typer.Argument(metavar="PREDICTION", help="Its id: inp/SUBJECT/POINT/SCOPE/MODEL.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The file to write, over one that is there.")
    ],
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write a text that proves one prediction: `coordinator verify FILE` checks it with the node's public key.

    It holds the appends that tell of its round, with their places in the tree, and the note that commits to them.

    Example: [bold]coordinator prove inp/BTCUSDT/1677628800000/60s/7 --out proof.txt --data-dir node[/bold]
    """
    if not out.absolute().parent.is_dir():
        raise OperatorError(f"there is no folder {out.absolute().parent}")
    settings, _ = node_log(data_dir, kafka)
    with progress_bar("records") as on_read:
        source = KafkaSource(settings.kafka_bootstrap, settings.crunch_id, on_read)
        count = run(write_proof(settings, source, prediction, out))
    typer.echo(f"{out}: {count} appends prove it; check: coordinator verify {out} --policy KEYS")
