"""`coordinator up`: a whole node on this machine, in one command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.shared import COLUMNS, STAMP, one_of, parse_speed, parse_time
from coordinator.infra.whole_file import check_to_write
from coordinator.streams.durations import YEAR_SECONDS
from coordinator.streams.log.errors import OperatorError


def _sources() -> Iterable[str]:
    from coordinator.streams.sources.catalog import known_sources  # noqa: PLC0415 - for a shell's Tab alone

    return known_sources()


def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where topics, stores and logs are kept. Default: DATA_DIR, else coordinator-data."
        ),
    ] = None,
    speed: Annotated[
        str, typer.Option(help="Replay at N times real time, or `max`: as fast as possible.")
    ] = "max",
    from_: Annotated[
        str | None, typer.Option("--from", help="Replay from this time on.", show_default=False)
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            help="Replay up to this time, then stop as soon as everything is scored.", show_default=False
        ),
    ] = None,
    for_seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            min=0,
            max=YEAR_SECONDS,
            help="Stop after running for this many seconds.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the API and the page. Default: API_PORT, else 8000."),
    ] = None,
    kafka: Annotated[
        str | None,
        typer.Option(
            help="Use this Kafka, HOST:PORT, instead of starting one. Default: KAFKA_BOOTSTRAP. TLS and SASL: "
            "KAFKA_SECURITY_PROTOCOL.",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(help="Folder with one folder per model. Default: MODELS_DIR, else the example models."),
    ] = None,
    contract: Annotated[
        str | None,
        typer.Option(help="Contract as module:attribute. Default: CONTRACT, else the example challenge."),
    ] = None,
    feed: Annotated[
        str | None,
        typer.Option(
            help="Feed source, e.g. binance or generated.",
            show_default=False,
            autocompletion=one_of(_sources),
        ),
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="What to take from the feed; may be repeated. Default: FEED_SUBJECTS, else BTCUSDT."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Kind of its records, as `feeds list` names it. Default: FEED_KIND, else candle."),
    ] = None,
    granularity: Annotated[
        str | None, typer.Option(help="The interval between records. Default: FEED_GRANULARITY, else 1m.")
    ] = None,
    candles: Annotated[
        Path | None,
        typer.Option(
            help="Replay this file of candles: CSV, JSON lines or Parquet, also gzipped or zipped; {subject} in its "
            "name stands for the subject.",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[str | None, COLUMNS] = None,
    stamp: Annotated[str | None, STAMP] = None,
    summary: Annotated[
        Path | None,
        typer.Option(help="Write a summary of the run's results to this JSON file.", show_default=False),
    ] = None,
) -> None:
    """Start Kafka, the models, the five workers and the page here, and keep them running until Ctrl-C.

    Without options it replays the last three days of BTCUSDT from Binance's public history as fast as it can, then
    continues live; without a network it uses a generated market and says so. Times are ISO 8601 with a zone, or epoch
    ms. Ctrl-C stops everything. Started again with the same --data-dir, it continues where it stopped.

    In the node's folder of a workspace that [bold]coordinator init[/bold] made, it runs that challenge: its contract,
    its models, and the settings of `.env` there.

    Examples: [bold]coordinator up[/bold],
    [bold]coordinator up --candles btc.csv.gz --until 2023-03-04T00:00:00Z --summary run.json[/bold],
    [bold]coordinator up --feed binance --subject BTCUSDT --subject ETHUSDT[/bold],
    [bold]coordinator up --feed generated --speed 600 --for 120[/bold]
    """
    if candles is not None and feed is not None:
        raise OperatorError("give either --candles or --feed, not both")
    if candles is None and (columns is not None or stamp is not None):
        raise OperatorError("--columns and --stamp need --candles: they say how to read its file")
    times = {
        name: None if text is None else parse_time(text) for name, text in (("from", from_), ("until", until))
    }
    if times["from"] is not None and times["until"] is not None and times["from"] >= times["until"]:
        raise OperatorError(f"--from {from_} is not before --until {until}")
    if summary is not None:
        check_to_write(summary)

    from coordinator.cli.node import run_node  # noqa: PLC0415
    from coordinator.cli.up_plan import UpOptions, make_plan  # noqa: PLC0415
    from coordinator.infra.processes.fork_server import ForkServer  # noqa: PLC0415

    # What the workers import takes longest of all: it begins before the plan is made.
    workers = ForkServer([sys.executable, "-Ium", "coordinator.cli.preloaded"], os.environ)
    workers.start(_fork_workers)
    options = UpOptions(
        data_dir=data_dir,
        replay_speed=parse_speed(speed),
        replay_from_ms=times["from"],
        replay_until_ms=times["until"],
        for_seconds=for_seconds,
        api_port=port,
        kafka=kafka,
        models_dir=models,
        contract=contract,
        feed=feed,
        subjects=tuple(subject or ()),
        kind=kind,
        granularity=granularity,
        candles=candles,
        columns=columns,
        stamp=stamp,
        summary=summary,
    )
    run_node(make_plan(options), workers)


def _fork_workers() -> None:
    """In the process that workers are forked from."""
    from coordinator.cli.preloaded import serve  # noqa: PLC0415 - `up` itself needs nothing of it

    serve()
