"""`coordinator backtest MODEL..`: what a model would have scored and been paid, over a market of the past."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from coordinator.cli.shared import (
    COLUMNS,
    DEMO_CONTRACT,
    STAMP,
    JsonOption,
    one_of,
    parse_time,
    print_json,
    time_text,
)
from coordinator.cli.terminal import Console, progress_bar
from coordinator.infra.contracts.loading import load_contracts
from coordinator.streams.backtest.entry_point import PAGE
from coordinator.streams.backtest.entry_point import backtest as play
from coordinator.streams.backtest.run import ModelResult, Result
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import read_settings
from coordinator.streams.sources.catalog import known_sources

REASONS_SHOWN = 3


def backtest(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="Folders of models (each with a main.py), or of such folders."
        ),
    ],
    candles: Annotated[
        Path | None, typer.Option(help="A file of candles, as `up --candles` reads it.", show_default=False)
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="A backup of a node's topics: its feed is played under its rules, whose code is run, and its "
            "models are ranked beside yours.",
            show_default=False,
        ),
    ] = None,
    feed: Annotated[
        str | None,
        typer.Option(
            help="A source to fetch history from, as `feeds list` names it.",
            show_default=False,
            autocompletion=one_of(known_sources),
        ),
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="First record's time: ISO 8601 with a zone, or epoch ms.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Last record's time.", show_default=False)] = None,
    contract: Annotated[
        str | None, typer.Option(help="The challenge, module:attribute. Default: CONTRACT, else the demo's.")
    ] = None,
    subject: Annotated[
        list[str] | None, typer.Option(help="Once for each. Default: FEED_SUBJECTS.", show_default=False)
    ] = None,
    columns: Annotated[str | None, COLUMNS] = None,
    stamp: Annotated[str | None, STAMP] = None,
    deadlines: Annotated[
        bool,
        typer.Option(
            "--deadlines", help="Treat an answer that is later than the node would wait as missing."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a page (index.html) and every prediction, score and snapshot (Parquet) into this folder.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Play models through a past market with the node's own stages: scores, leaderboard and exact payout.

    Each model runs in a separate process and is asked as the node asks it, with the same bytes. Errors, hangs and
    invalid answers count as on the node. The time of each answer is measured and shown. Late answers cost nothing
    unless you give `--deadlines`, because this machine is not the node's. If you name no market, 30 generated days
    are played.

    Examples:
      [bold]coordinator backtest my-models/trend --candles btc.csv.gz[/bold]
      [bold]coordinator backtest examples --feed binance --from 2026-11-01T00:00:00Z --to 2026-11-08T00:00:00Z[/bold]
    """
    console = Console()
    began = time.monotonic()
    told = read_settings(
        os.environ, contract=contract or (None if os.environ.get("CONTRACT") else DEMO_CONTRACT)
    )
    since = None if from_ is None else parse_time(from_)
    until = None if to is None else parse_time(to)
    if since is not None and until is not None and since >= until:
        raise OperatorError(f"--from {from_} is not before --to {to}")
    refused: list[str] = []
    with progress_bar("rounds") as advance:
        result = play(
            models,
            load_contracts(told.contract, kind=told.feed_kind).current,
            told.model_base_classname,
            candles=candles,
            log=log,
            feed=feed,
            start=since,
            end=until,
            subjects=subject,
            report=report,
            deadlines=deadlines,
            columns=columns,
            stamp=stamp,
            environ=os.environ,
            on_progress=lambda rounds, _at: advance(rounds, 0),
            on_refused=refused.append,
        )
    if as_json:
        print_json(facts_of(result) | {"rows_refused": len(refused)})
        return
    show(result, console)
    if report is not None:
        console.print(Text(f"report: {report / PAGE}"))
    console.print(f"{result.rounds:,} rounds in {time.monotonic() - began:.1f} s", highlight=False)
    if refused:
        console.print(Text(f"{len(refused):,} rows or records were refused; the first: {refused[0]}"))


def facts_of(result: Result) -> dict[str, Any]:
    """The table for programs. Scores are numbers in the contract's units of 10^-`score_decimals`, shares frac64."""
    return {
        "rounds": result.rounds,
        "first_point": result.first_point,
        "until": result.until,
        "checkpoints": result.checkpoints,
        "ranking_key": result.ranking_key,
        "score_decimals": result.score_decimals,
        "models": [
            {
                "model_id": line.model_id,
                "model_name": line.model_name,
                "rank": line.rank,
                "rank_units": line.rank_units,
                "mean_units": line.mean_units,
                "share_frac64": line.share,
                "scored": line.of.scored,
                "failed": line.of.failed,
                "absent": line.of.absent,
                "rounds_late": line.late_count,
                "latency_us_p50": line.p50_us,
                "latency_us_p95": line.p95_us,
                "latency_us_max": line.max_us,
                "missing": [
                    {"status": status, "reason": reason, "count": count}
                    for (status, reason), count in line.of.missing.most_common()
                ],
            }
            for line in result.models
        ],
    }


def show(result: Result, console: Console) -> None:
    """Print the table, and below it why answers are missing."""
    table = Table(
        *result.columns,
        "p50 / p95 / max",
        title=f"{time_text(result.first_point)} .. {time_text(result.until)}, {result.checkpoints} checkpoints",
        title_justify="left",
    )
    for line in result.models:
        times = " / ".join(f"{us / 1000:.1f}" for us in (line.p50_us, line.p95_us, line.max_us))
        table.add_row(*map(Text, result.cells(line)), f"{times} ms")
    console.print(table)
    for line in result.models:
        for text in notes_of(line):
            console.print(Text(text))


def notes_of(line: ModelResult) -> list[str]:
    """Why answers of a model are missing, the most frequent reasons first; and how often it was slow."""
    notes = [
        f"{line.model_id}: {count:,} {status}: {reason}"
        for (status, reason), count in line.of.missing.most_common(REASONS_SHOWN)
    ]
    if line.late_count:
        notes.append(f"{line.model_id}: {line.late_count:,} rounds took longer than the node would wait")
    return notes
