"""`coordinator prove`: one prediction's answer, truth and score, proved to be in the tree of a signed note."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.evidence_out import OutOption, source_for
from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, print_done, run
from coordinator.infra.evidence.proving import write_proof


def prove(
    prediction: Annotated[
        str, typer.Argument(metavar="PREDICTION", help="Its id: inp/SUBJECT/POINT/SCOPE/MODEL.")
    ],
    out: OutOption,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a text that proves one prediction: `coordinator verify FILE` checks it with the node's public key.

    It holds the appends about the prediction's round, their places in the tree, and the note that commits to them.

    Example: [bold]coordinator prove inp/BTCUSDT/1677628800000/60s/7 --out proof.txt --data-dir node[/bold]
    """
    with source_for(out, data_dir, kafka) as (settings, source):
        count = run(write_proof(settings, source, prediction, out))
    text = f"{out}: {count} appends prove it; check: coordinator verify {out} --policy KEYS"
    print_done(text, {"file": str(out), "prediction": prediction, "appends": count}, as_json=as_json)
