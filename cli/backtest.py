"""`coordinator backtest MODEL..`: what a model would have scored and been paid, over a market of the past."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from coordinator.cli.shared import COLUMNS, STAMP, parse_time, time_text
from coordinator.cli.terminal import Console, progress_bar
from coordinator.infra.contracts.loading import load_contracts
from coordinator.infra.models.host.folder import ModelEntry, models_of
from coordinator.streams.backtest.market import from_file, from_history
from coordinator.streams.backtest.run import Instant, ModelResult, Plan, Result, run_backtest
from coordinator.streams.backtest.tables import Tables
from coordinator.streams.contract import FRAC64_ONE
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.sources.catalog import source_by_name
from coordinator.streams.sources.options import options_from

DEMO_CONTRACT = "coordinator.infra.contracts.demo:CONTRACT"
GENERATED_END_MS = 1_700_006_400_000
"""2023-11-15T00:00Z: the made-up market is the same every day."""
DAY_MS = 86_400_000
DAYS = 30
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
    feed: Annotated[
        str | None,
        typer.Option(help="A source whose history is asked, as `feeds list` names it.", show_default=False),
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
        bool, typer.Option("--deadlines", help="An answer later than the node would wait is none.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a page (index.html) and every prediction, score and snapshot (Parquet) into this folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Play models through a market of the past, by the node's own stages: scores, board and payout to the unit.

    Each model runs in a process of its own and is asked as the node asks it, with the very bytes. What it raises, how
    it hangs, what it says wrong counts as it would there. Its time is measured and told; it costs nothing unless
    `--deadlines` is given, since this machine is not the node's. Without a market named, 30 made-up days are played.

    Examples:
      [bold]coordinator backtest my-models/trend --candles btc.csv.gz[/bold]
      [bold]coordinator backtest examples --feed binance --from 2026-11-01T00:00:00Z --to 2026-11-08T00:00:00Z[/bold]
    """
    page_of = None if report is None else _page_maker()
    if candles is not None and feed is not None:
        raise OperatorError("--candles and --feed exclude each other: a file of candles is a feed")
    entries = _entries(models)
    settings = read_settings(
        os.environ,
        contract=contract or (None if os.environ.get("CONTRACT") else DEMO_CONTRACT),
        feed_candles_file=None if candles is None else str(candles.absolute()),
        feed_source=feed or ("candles" if candles is not None else "generated"),
        feed_subjects=",".join(subject) if subject else None,
        feed_columns=columns,
        feed_stamp=stamp,
        replay_from_ms=None if from_ is None else parse_time(from_),
        replay_until_ms=None if to is None else parse_time(to),
    )
    shelf = load_contracts(settings.contract, kind=settings.feed_kind)
    plan = Plan(
        entries,
        shelf.current,
        shelf.current_hash,
        settings,
        settings.model_base_classname,
        deadlines=deadlines,
    )
    refused: list[str] = []
    instants = _instants(settings, feed, refused.append)
    console = Console()
    began = time.monotonic()
    with ExitStack() as ends:
        scratch = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="coordinator-backtest-")))
        ends.enter_context(closing(instants))
        advance = ends.enter_context(progress_bar("rounds"))
        take: Callable[[Decision], None] = lambda _decision: None  # noqa: E731
        if report is not None:
            tables = Tables(report, plan.contract.aggregation.value_field)
            take = ends.enter_context(tables).take
        result = run_backtest(plan, instants, scratch, lambda rounds, _at: advance(rounds, 0), take)
    show(result, console)
    if report is not None and page_of is not None:
        market = str(candles) if candles is not None else f"the history of {settings.feed_source}"
        names = ", ".join(entry.model_id for entry in entries)
        page = report / "index.html"
        page.write_text(page_of(result, f"Backtest of {names}", [f"The market: {market}."]))
        console.print(Text(f"report: {page}"))
    seconds = time.monotonic() - began
    console.print(f"{result.rounds:,} rounds in {seconds:.1f} s", highlight=False)
    if refused:
        console.print(Text(f"{len(refused):,} rows or records were refused; the first: {refused[0]}"))


def _page_maker() -> Callable[..., str]:
    """Raises OperatorError where its library is not installed, before anything is played."""
    try:
        from coordinator.streams.backtest.report import page_of  # noqa: PLC0415 - brings plotly, which is an extra
    except ModuleNotFoundError as error:
        raise OperatorError(
            f"--report needs {error.name}: pip install 'coordinator-node[backtest]'"
        ) from error
    return page_of


def _entries(models: list[Path]) -> list[ModelEntry]:
    by_id: dict[str, ModelEntry] = {}
    for folder in models:
        for entry in models_of(folder):
            if entry.model_id in by_id:
                raise OperatorError(
                    f"{entry.folder} and {by_id[entry.model_id].folder} have the model_id {entry.model_id!r}: "
                    "rename one folder"
                )
            by_id[entry.model_id] = entry
    return sorted(by_id.values(), key=lambda entry: entry.model_id)


def _instants(
    settings: Settings, feed: str | None, on_refused: Callable[[str], None]
) -> Generator[Instant, None, None]:
    if settings.feed_candles_file:
        yield from from_file(settings, on_refused)
        return
    if feed is None:
        options, end = {"seed": str(settings.feed_seed)}, settings.replay_until_ms or GENERATED_END_MS
    else:
        options = options_from(os.environ, feed)
        if settings.replay_from_ms is None or settings.replay_until_ms is None:
            raise OperatorError(f"--feed {feed} needs --from and --to")
        end = settings.replay_until_ms
    start = settings.replay_from_ms if settings.replay_from_ms is not None else end - DAYS * DAY_MS + 1
    source = source_by_name(settings.feed_source, options, lambda reason, _text: on_refused(reason))
    yield from from_history(settings, source, start, end, on_refused)


def show(result: Result, console: Console) -> None:
    """Print the table, and below it why answers are missing."""
    end = result.ending.until if result.ending else result.last_point
    table = Table(
        *(
            "rank",
            "model",
            result.ranking_key,
            "mean",
            "scored",
            "failed",
            "absent",
            "share",
            "p50 / p95 / max",
        ),
        title=f"{time_text(result.first_point)} .. {time_text(end)}, {result.checkpoints} checkpoints",
        title_justify="left",
    )
    unit = 10**result.score_decimals
    for line in result.models:
        of = line.of
        table.add_row(
            "" if line.rank is None else str(line.rank),
            Text(line.model_id),
            "" if line.rank_units is None else f"{line.rank_units / unit:.6f}",
            "" if line.mean_units is None else f"{line.mean_units / unit:.6f}",
            f"{of.scored:,}",
            f"{of.failed:,}",
            f"{of.absent:,}",
            f"{line.share / FRAC64_ONE / max(1, _paid(result)):.2%}",
            " / ".join(f"{us / 1000:.1f}" for us in (line.p50_us, line.p95_us, line.max_us)) + " ms",
        )
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


def _paid(result: Result) -> int:
    """How many checkpoints pay anybody, the running one with them."""
    return result.checkpoints + bool(result.ending and result.ending.checkpoint)
