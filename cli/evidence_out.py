"""What `bundle` and `prove` share: the file that each writes, and the log that each reads for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.own_kafka import node_log
from coordinator.cli.terminal import progress_bar
from coordinator.infra.evidence.bundling import KafkaSource
from coordinator.infra.whole_file import check_to_write
from coordinator.streams.settings import Settings

OutOption = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="The file to write; an existing file is replaced.")
]


@contextmanager
def source_for(out: Path, data_dir: Path | None, kafka: str | None) -> Iterator[tuple[Settings, KafkaSource]]:
    """The node's settings and its log, with a bar while it is read. Raises OperatorError where `out` cannot be
    written, and what `node_log` raises.
    """
    check_to_write(out)
    settings, _ = node_log(data_dir, kafka)
    with progress_bar("records") as on_read:
        yield settings, KafkaSource(settings.kafka_bootstrap, settings.crunch_id, on_read)
